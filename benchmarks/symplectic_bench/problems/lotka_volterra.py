"""The Lotka-Volterra equations of prey x and predators z, the standard problem of parameter estimation.

Lotka, Elements of Physical Biology, 1925; Volterra, Fluctuations in the abundance of a species considered
mathematically, Nature, 1926.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class LotkaVolterraField(nn.Module):
    """x' = a x - b x z,  z' = c x z - d z, with rates = (a, b, c, d) the parameters."""

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.rates = nn.Parameter(rates)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        a, b, c, d = self.rates
        prey, predators = y[:, 0], y[:, 1]
        meetings = prey * predators
        return torch.stack([a * prey - b * meetings, c * meetings - d * predators], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    a, b, c, d = theta[0]
    prey, predators = y[:, 0], y[:, 1]
    meetings = prey * predators
    return ops.stack([a * prey - b * meetings, c * meetings - d * predators], axis=1)


def draw(source: Source, batch: int, *, end: float = 5.0, outputs: int = 10) -> Problem:
    """Draw positive starts, log-normal about (1, 1). The equilibrium is (3, 1.5)."""
    rates = torch.tensor([1.5, 1.0, 1.0, 3.0], dtype=torch.float64)
    y0 = source.normal(batch, 2, std=0.2).exp()
    return Problem(LotkaVolterraField(rates), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


LOTKA_VOLTERRA = Family("lotka_volterra", draw, formula)
