"""The Allen-Cahn equation of two phases that grow at each other's expense: stiff diffusion beside a mild reaction.

Allen and Cahn, A microscopic theory for antiphase boundary motion and its application to antiphase domain coarsening,
Acta Metallurgica, 1979. Diffusion implicit and reaction explicit: Ascher, Ruuth and Wetton, Implicit-explicit methods
for time-dependent partial differential equations, SIAM Journal on Numerical Analysis, 1995.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.periodic import second_difference, second_difference_formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, Split, output_times

WIDTH = 1.0
"""Length of the periodic interval."""


class PhaseReaction(nn.Module):
    """u' = r (u - u^3), which drives u to one of the phases -1 and 1, with the rate r the parameter."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.rate * (y - y * y * y)


class PhaseDiffusion(nn.Module):
    """u' = gamma u_xx by central differences, with gamma the parameter."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(gamma, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.gamma * second_difference(y, WIDTH / y.shape[1])


def reaction(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the reaction in any arithmetic."""
    del ops, held, t
    return theta[0] * (y - y * y * y)


def diffusion(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the diffusion in any arithmetic."""
    del held, t
    return theta[1] * second_difference_formula(ops, y, WIDTH / y.shape[1])


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    return reaction(ops, theta, held, t, y) + diffusion(ops, theta, held, t, y)


def draw(source: Source, batch: int, *, points: int = 64, end: float = 2.0, outputs: int = 4) -> Problem:
    """Draw three waves of random height and phase, at `points` grid points, with r = 1 and gamma = 0.01.

    Stability limits explicit methods to steps of about 0.8 dx^2 / gamma: twice the points take four times the steps.
    """
    x = torch.arange(points, dtype=torch.float64) / points
    waves = torch.arange(1, 4, dtype=torch.float64)[:, None]
    phase, height = source.normal(batch, 3, 1), source.normal(batch, 3, 1, std=0.5)
    y0 = (height * (2 * torch.pi * waves * (x + phase)).sin()).sum(dim=1)
    func = Split(PhaseReaction(1.0), PhaseDiffusion(0.01))
    return Problem(func, y0, output_times(end, outputs), MeanSquare(source.normal(batch, points)))


ALLEN_CAHN = Family("allen_cahn", draw, formula, split=(reaction, diffusion))
