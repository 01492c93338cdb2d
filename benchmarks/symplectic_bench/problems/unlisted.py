"""A field with a weight in a plain list, where nn.Module does not find it: a test for lost gradients."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class UnlistedField(nn.Module):
    """y' = tanh(y V) W, with only V among the module's parameters: a list of tensors is not an nn.ParameterList."""

    def __init__(self, V: Tensor, W: Tensor) -> None:
        super().__init__()
        self.V = nn.Parameter(V)
        self.unlisted = [W.requires_grad_()]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return (y @ self.V).tanh() @ self.unlisted[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "UnlistedField":
        """Let .to() move the list too: the problem tests the gradient, not the device."""
        super()._apply(fn, *args, **kwargs)
        self.unlisted = [fn(x.detach()).requires_grad_() for x in self.unlisted]
        return self


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    V, W = theta
    return ops.tanh(y @ V) @ W


def draw(source: Source, batch: int, *, state: int = 4, width: int = 16, end: float = 2.0, outputs: int = 1) -> Problem:
    """Draw weights for states of `state` components and `width` hidden units."""
    V = source.normal(state, width, std=1 / state**0.5)
    W = source.normal(width, state, std=1 / width**0.5)
    y0, target = source.normal(batch, state), source.normal(batch, state)
    return Problem(UnlistedField(V, W), y0, output_times(end, outputs), MeanSquare(target))


UNLISTED = Family("unlisted", draw, formula, unlisted=True)
