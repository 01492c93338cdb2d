"""The Korteweg-de Vries equation of waves in shallow water, in which a higher soliton overtakes a lower one.

Korteweg and de Vries, On the change of form of long waves advancing in a rectangular canal, Philosophical Magazine,
1895. One of the two physical systems learned in Matsubara, Miyatake and Yaguchi, NeurIPS 2021.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.periodic import (
    first_difference,
    first_difference_formula,
    second_difference,
    second_difference_formula,
)
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

WIDTH = 10.0
"""Length of the periodic interval."""


class KdVField(nn.Module):
    """u_t = -alpha u u_x - beta u_xxx on a periodic interval, with coefficients = (alpha, beta) the parameters.

    Space is discretised as u_t = D grad H, H = sum of beta (u_{i+1} - u_i)^2 / (2 dx^2) - alpha u_i^3 / 6. Since the
    central difference D is skew-symmetric, the Hamiltonian H is conserved exactly, and so is the sum of u.
    """

    def __init__(self, coefficients: Tensor) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(coefficients)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        alpha, beta = self.coefficients
        dx = WIDTH / y.shape[1]
        return first_difference(-alpha / 2 * y * y - beta * second_difference(y, dx), dx)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    alpha, beta = theta[0]
    dx = WIDTH / y.shape[1]
    return first_difference_formula(ops, -alpha / 2 * y * y - beta * second_difference_formula(ops, y, dx), dx)


def soliton(k: Tensor, center: Tensor, points: int) -> Tensor:
    """Return 2 k^2 sech^2(k (x - center)) for each k. For (alpha, beta) = (6, 1) it travels at speed 4 k^2."""
    x = WIDTH * torch.arange(points, dtype=torch.float64) / points
    away = torch.remainder(x - center[:, None] + WIDTH / 2, WIDTH) - WIDTH / 2  # the shorter way around
    return 2 * k[:, None] ** 2 / torch.cosh(k[:, None] * away) ** 2


def draw(source: Source, batch: int, *, points: int = 24, end: float = 2.0, outputs: int = 10) -> Problem:
    """Draw two solitons per sample, at `points` grid points.

    The higher one starts behind the lower one and has overtaken it by the default end.
    """
    high, low = 1.2 * source.normal(batch, std=0.1).exp(), 0.7 * source.normal(batch, std=0.1).exp()
    behind, ahead = 2.0 + source.normal(batch, std=0.3), 5.0 + source.normal(batch, std=0.3)
    y0 = soliton(high, behind, points) + soliton(low, ahead, points)
    coefficients = torch.tensor([6.0, 1.0], dtype=torch.float64)
    return Problem(KdVField(coefficients), y0, output_times(end, outputs), MeanSquare(source.normal(batch, points)))


KDV = Family("kdv", draw, formula)
