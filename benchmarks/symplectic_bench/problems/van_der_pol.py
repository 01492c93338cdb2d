"""The van der Pol oscillator: a limit cycle that becomes stiff as mu grows.

Van der Pol, On relaxation-oscillations, Philosophical Magazine, 1926.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class VanDerPolField(nn.Module):
    """x' = v,  v' = mu (1 - x^2) v - x, with mu the only parameter."""

    def __init__(self, mu: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        x, v = y[:, 0], y[:, 1]
        return torch.stack([v, self.mu * (1 - x * x) * v - x], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    (mu,) = theta
    x, v = y[:, 0], y[:, 1]
    return ops.stack([v, mu * (1 - x * x) * v - x], axis=1)


def draw(source: Source, batch: int, *, mu: float = 1.0, end: float = 5.0, outputs: int = 10) -> Problem:
    """Draw starts scattered about (2, 0), near the limit cycle."""
    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64) + source.normal(batch, 2, std=0.3)
    return Problem(VanDerPolField(mu), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


VAN_DER_POL = Family("van_der_pol", draw, formula)
