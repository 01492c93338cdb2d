"""Fields as formulas over any arithmetic: JAX's arrays, fifty-digit numbers, symbols.

Every field is written twice: as a torch module, which is measured, and as a formula, which references and oracles that
share no code with torch evaluate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Array = Any
"""An array of the arithmetic's numbers, with its own + - * / @ and indexing."""


class Arithmetic(Protocol):
    """The functions that formulas use besides operators. All but expm, stack and concatenate work entry by entry."""

    @property
    def pi(self) -> Array: ...
    def plain(self, x: Array, /) -> Array:
        """Return the values of x, detached from what they were computed from."""
        ...

    def exp(self, x: Array, /) -> Array: ...
    def log(self, x: Array, /) -> Array: ...
    def sqrt(self, x: Array, /) -> Array: ...
    def sin(self, x: Array, /) -> Array: ...
    def cos(self, x: Array, /) -> Array: ...
    def tanh(self, x: Array, /) -> Array: ...
    def sigmoid(self, x: Array, /) -> Array: ...
    def softplus(self, x: Array, /) -> Array: ...
    def expm(self, A: Array, /) -> Array:
        """Return the exponential of a square matrix."""
        ...

    def stack(self, arrays: Sequence[Array], /, axis: int) -> Array: ...
    def concatenate(self, arrays: Sequence[Array], /, axis: int) -> Array: ...


Held = Mapping[str, Any]
"""The constants of a field or a loss, by name: the module's buffers and, for a field, the problem's sizes."""

Formula = Callable[[Arithmetic, Sequence[Array], Held, Array, Array], Array]
"""The field: f(ops, theta, held, t, y), of the shape of y, (batch, dim).

ops is the arithmetic, theta the list of the module's parameters, held its constants, and t a number.
"""

LossFormula = Callable[[Arithmetic, Held, Array], Array]
"""The loss(ops, held, ys), a number, of ys (len(t), batch, dim)."""

SolutionFormula = Callable[[Arithmetic, Sequence[Array], Held, Array, Array], Array]
"""The solution y(ops, theta, held, t, y0), (batch, dim), at the time t since the start, from y0 (batch, dim)."""
