"""The field that returns its state, so that time and memory of a solve are the solver's own."""

from collections.abc import Sequence

from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, Loss, Problem, Source, output_times


class IdentityField(nn.Module):
    """y' = y, without even a copy."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return y


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del ops, theta, held, t
    return y


def solution(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y0: Array) -> Array:
    """Return y(t) = e^t y0."""
    del theta, held
    return y0 * ops.exp(t)


class Projection(Loss):
    """The mean of all outputs times one direction. Neither it nor its gradient stores anything for each output."""

    direction: Tensor

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.register_buffer("direction", direction)

    def forward(self, ys: Tensor) -> Tensor:
        return (ys.sum(dim=0) * self.direction).sum() / ys.numel()

    @staticmethod
    def formula(ops: Arithmetic, held: Held, ys: Array) -> Array:
        del ops
        return (ys.sum(axis=0) * held["direction"]).sum() / ys.size


def draw(source: Source, batch: int, *, dim: int = 8, end: float = 1.0, outputs: int = 1) -> Problem:
    """Draw y0, (batch, dim), and the direction. There are no parameters."""
    y0, direction = source.normal(batch, dim), source.normal(batch, dim)
    return Problem(IdentityField(), y0, output_times(end, outputs), Projection(direction))


IDENTITY = Family("identity", draw, formula, solution)
