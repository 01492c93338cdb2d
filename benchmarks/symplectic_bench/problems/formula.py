"""A field once more, as a formula over any arithmetic: JAX's arrays, numbers of fifty digits, symbols.

The modules are what is measured; the formulas are what they are checked with, by code that shares nothing with torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Array = Any
"""An array of whatever numbers the arithmetic has; + - * / @ and indexing are its own."""


class Arithmetic(Protocol):
    """What formulas need besides. What takes one array works entry by entry, but expm."""

    @property
    def pi(self) -> Array: ...
    def plain(self, x: Array, /) -> Array:
        """x without what it was computed from, by which it will not be differentiated."""
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
        """The exponential of a square matrix."""
        ...

    def stack(self, arrays: Sequence[Array], /, axis: int) -> Array: ...
    def concatenate(self, arrays: Sequence[Array], /, axis: int) -> Array: ...


Held = Mapping[str, Any]
"""The buffers of a module, by name; for a field, the sizes of the problem too."""

Formula = Callable[[Arithmetic, Sequence[Array], Held, Array, Array], Array]
"""f(theta, held, t, y), after the arithmetic.

theta are the field's parameters, in the order in which its module has them, and held what else it has; t is a number
and y (batch, dim).
"""

LossFormula = Callable[[Arithmetic, Held, Array], Array]
"""The loss of ys (len(t), batch, dim), a number."""

SolutionFormula = Callable[[Arithmetic, Sequence[Array], Held, Array, Array], Array]
"""y(t) from theta, held, the time since the start, and y0 (batch, dim)."""
