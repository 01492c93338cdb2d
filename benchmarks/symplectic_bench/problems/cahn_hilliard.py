"""The Cahn-Hilliard equation of a mixture that separates into two phases. It is of fourth order, and so stiff.

Cahn and Hilliard, Free energy of a nonuniform system I, Journal of Chemical Physics, 1958. One of the two physical
systems learned in Matsubara, Miyatake and Yaguchi, NeurIPS 2021.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.periodic import second_difference, second_difference_formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

WIDTH = 1.0
"""Length of the periodic interval."""


class CahnHilliardField(nn.Module):
    """u_t = m (u^3 - u - gamma u_xx)_xx on a periodic interval, with the mobility m and gamma the parameters.

    Space is discretised by central differences. The term in brackets is the gradient of the free energy
    F = sum of (u_i^2 - 1)^2 / 4 + gamma (u_{i+1} - u_i)^2 / (2 dx^2), which decreases; the sum of u is conserved.
    """

    def __init__(self, mobility: float, gamma: float) -> None:
        super().__init__()
        self.mobility = nn.Parameter(torch.tensor(mobility, dtype=torch.float64))
        self.gamma = nn.Parameter(torch.tensor(gamma, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        dx = WIDTH / y.shape[1]
        potential = y * y * y - y - self.gamma * second_difference(y, dx)
        return self.mobility * second_difference(potential, dx)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    mobility, gamma = theta
    dx = WIDTH / y.shape[1]
    potential = y * y * y - y - gamma * second_difference_formula(ops, y, dx)
    return mobility * second_difference_formula(ops, potential, dx)


def draw(source: Source, batch: int, *, points: int = 32, end: float = 0.02, outputs: int = 10) -> Problem:
    """Draw a homogeneous mixture with a little noise, at `points` grid points.

    Waves of length 0.2 grow fastest, by a factor of e per 2e-3 units of time, until the phases have separated.
    Stability limits explicit methods to steps of about dx^4 / (5 gamma): twice the points take 16 times the steps.
    """
    y0 = source.normal(batch, points, std=0.05)
    return Problem(
        CahnHilliardField(mobility=1.0, gamma=5e-4),
        y0,
        output_times(end, outputs),
        MeanSquare(source.normal(batch, points)),
    )


CAHN_HILLIARD = Family("cahn_hilliard", draw, formula)
