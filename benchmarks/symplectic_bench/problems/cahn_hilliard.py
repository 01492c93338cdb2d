"""The Cahn-Hilliard equation: a mixture that separates into its two phases. Of fourth order, and so stiff.

Cahn and Hilliard, Free energy of a nonuniform system I, Journal of Chemical Physics, 1958; one of the two systems that
Matsubara, Miyatake and Yaguchi learn, NeurIPS 2021.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.periodic import second_difference, second_difference_formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

WIDTH = 1.0


class CahnHilliardField(nn.Module):
    """u_t = m (u^3 - u - gamma u_xx)_xx on a periodic interval, with the mobility m and gamma the parameters.

    What is in brackets is the gradient of F = sum of (u_i^2 - 1)^2 / 4 + gamma (u_{i+1} - u_i)^2 / (2 dx^2), the free
    energy, which falls; the sum of u stays.
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
    del held, t
    mobility, gamma = theta
    dx = WIDTH / y.shape[1]
    potential = y * y * y - y - gamma * second_difference_formula(ops, y, dx)
    return mobility * second_difference_formula(ops, potential, dx)


def draw(source: Source, batch: int, *, points: int = 32, end: float = 0.02, outputs: int = 10) -> Problem:
    """A mixture with a little noise, of which waves of length 0.2 grow fastest, by e in 2e-3, until they are phases.

    Stability holds explicit methods to steps of dx^4 / (5 gamma), so that they grow 16-fold with twice the points.
    """
    y0 = source.normal(batch, points, std=0.05)
    return Problem(
        CahnHilliardField(mobility=1.0, gamma=5e-4),
        y0,
        output_times(end, outputs),
        MeanSquare(source.normal(batch, points)),
    )


CAHN_HILLIARD = Family("cahn_hilliard", draw, formula)
