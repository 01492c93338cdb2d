"""A field that keeps its weight in a plain list, where nn.Module does not find it: what is lost of its gradient?"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class UnlistedField(nn.Module):
    """y' = tanh(y V) W, where only V is among the parameters: a list of tensors is not a nn.ParameterList."""

    def __init__(self, V: Tensor, W: Tensor) -> None:
        super().__init__()
        self.V = nn.Parameter(V)
        self.unlisted = [W.requires_grad_()]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return (y @ self.V).tanh() @ self.unlisted[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "UnlistedField":
        """So that .to() takes them along: what is on trial is the gradient, not the device."""
        super()._apply(fn, *args, **kwargs)
        self.unlisted = [fn(x.detach()).requires_grad_() for x in self.unlisted]
        return self


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    del held, t
    V, W = theta
    return ops.tanh(y @ V) @ W


def draw(source: Source, batch: int, *, state: int = 4, width: int = 16, end: float = 2.0, outputs: int = 1) -> Problem:
    V = source.normal(state, width, std=1 / state**0.5)
    W = source.normal(width, state, std=1 / width**0.5)
    y0, target = source.normal(batch, state), source.normal(batch, state)
    return Problem(UnlistedField(V, W), y0, output_times(end, outputs), MeanSquare(target))


UNLISTED = Family("unlisted", draw, formula, unlisted=True)
