"""The Korteweg-de Vries equation: waves in shallow water, of which the higher one overtakes the lower.

Korteweg and de Vries, On the change of form of long waves advancing in a rectangular canal, Philosophical Magazine,
1895; one of the two systems that Matsubara, Miyatake and Yaguchi learn, NeurIPS 2021.
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


class KdVField(nn.Module):
    """u_t = -alpha u u_x - beta u_xxx on a periodic interval, with coefficients = (alpha, beta) the parameters.

    As u_t = D grad H, the Hamiltonian H = sum of beta (u_{i+1} - u_i)^2 / (2 dx^2) - alpha u_i^3 / 6. Since D, the
    central difference, is skew-symmetric, H is conserved exactly, and so is the sum of u.
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
    del held, t
    alpha, beta = theta[0]
    dx = WIDTH / y.shape[1]
    return first_difference_formula(ops, -alpha / 2 * y * y - beta * second_difference_formula(ops, y, dx), dx)


def soliton(k: Tensor, center: Tensor, points: int) -> Tensor:
    """2 k^2 sech^2(k (x - center)), which travels at speed 4 k^2 for (alpha, beta) = (6, 1), one for each k."""
    x = WIDTH * torch.arange(points, dtype=torch.float64) / points
    away = torch.remainder(x - center[:, None] + WIDTH / 2, WIDTH) - WIDTH / 2  # the nearest way round
    return 2 * k[:, None] ** 2 / torch.cosh(k[:, None] * away) ** 2


def draw(source: Source, batch: int, *, points: int = 24, end: float = 2.0, outputs: int = 10) -> Problem:
    """Two solitons a sample, the higher one behind, which has overtaken the other by the default end."""
    high, low = 1.2 * source.normal(batch, std=0.1).exp(), 0.7 * source.normal(batch, std=0.1).exp()
    behind, ahead = 2.0 + source.normal(batch, std=0.3), 5.0 + source.normal(batch, std=0.3)
    y0 = soliton(high, behind, points) + soliton(low, ahead, points)
    coefficients = torch.tensor([6.0, 1.0], dtype=torch.float64)
    return Problem(KdVField(coefficients), y0, output_times(end, outputs), MeanSquare(source.normal(batch, points)))


KDV = Family("kdv", draw, formula)
