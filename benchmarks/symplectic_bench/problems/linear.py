"""A linear field, whose solution is a matrix exponential."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class LinearField(nn.Module):
    """y' = A y for each row y of the batch."""

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        self.A = nn.Parameter(A)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return y @ self.A.T


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del ops, held, t
    (A,) = theta
    return y @ A.T


def solution(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y0: Array) -> Array:
    """Return y(t) = expm(A t) y0 for each row of y0."""
    del held
    (A,) = theta
    return y0 @ ops.expm(A * t).T


def draw(source: Source, batch: int, *, dim: int = 8, end: float = 1.0, outputs: int = 1) -> Problem:
    """Draw rotations at random frequencies with a slow decay: A is a skew matrix minus a tenth of the identity."""
    G = source.normal(dim, dim, std=2.0 / dim**0.5)
    A = (G - G.T) / 2 - 0.1 * torch.eye(dim, dtype=torch.float64)
    y0, target = source.normal(batch, dim), source.normal(batch, dim)
    return Problem(LinearField(A), y0, output_times(end, outputs), MeanSquare(target))


LINEAR = Family("linear", draw, formula, solution)
