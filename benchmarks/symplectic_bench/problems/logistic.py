"""Logistic growth, the smallest nonlinear problem with a known solution.

Verhulst, Notice sur la loi que la population suit dans son accroissement, 1838.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class LogisticField(nn.Module):
    """y' = r y (1 - y / K), with the rate r and the capacity K the parameters."""

    def __init__(self, rate: float, capacity: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))
        self.capacity = nn.Parameter(torch.tensor(capacity, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.rate * y * (1 - y / self.capacity)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del ops, held, t
    r, K = theta
    return r * y * (1 - y / K)


def solution(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y0: Array) -> Array:
    """Return y(t) = K / (1 + (K / y0 - 1) e^(-r t))."""
    del held
    r, K = theta
    return K / (1 + (K / y0 - 1) * ops.exp(-r * t))


def draw(source: Source, batch: int, *, end: float = 4.0, outputs: int = 10) -> Problem:
    """Draw positive starts, log-normal about a tenth of K. By the default end the solution is near K."""
    y0 = 0.2 * source.normal(batch, 1, std=0.5).exp()
    return Problem(LogisticField(1.5, 2.0), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 1)))


LOGISTIC = Family("logistic", draw, formula, solution)
