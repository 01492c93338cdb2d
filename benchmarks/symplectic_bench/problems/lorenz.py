"""The Lorenz system of convection: it is chaotic, so gradients grow exponentially with time.

Lorenz, Deterministic nonperiodic flow, Journal of the Atmospheric Sciences, 1963.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class LorenzField(nn.Module):
    """x' = sigma (y - x),  y' = x (rho - z) - y,  z' = x y - beta z, with numbers = (sigma, rho, beta)."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = nn.Parameter(numbers)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        sigma, rho, beta = self.numbers
        x, y_, z = y[:, 0], y[:, 1], y[:, 2]
        return torch.stack([sigma * (y_ - x), x * (rho - z) - y_, x * y_ - beta * z], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    sigma, rho, beta = theta[0]
    x, y_, z = y[:, 0], y[:, 1], y[:, 2]
    return ops.stack([sigma * (y_ - x), x * (rho - z) - y_, x * y_ - beta * z], axis=1)


def draw(source: Source, batch: int, *, end: float = 3.0, outputs: int = 10) -> Problem:
    """Draw starts scattered about a point between the two wings, with Lorenz's parameters.

    Neighbouring solutions separate by a factor of e per 1.1 units of time: by 15 at the default end, by 1e8 at 20.
    """
    numbers = torch.tensor([10.0, 28.0, 8 / 3], dtype=torch.float64)
    y0 = torch.tensor([1.0, 1.0, 20.0], dtype=torch.float64) + source.normal(batch, 3)
    return Problem(LorenzField(numbers), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 3)))


LORENZ = Family("lorenz", draw, formula)
