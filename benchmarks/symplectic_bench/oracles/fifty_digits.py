"""Differentiable numbers of fifty digits, the arithmetic of oracles and references.

A Number records the numbers it was computed from, and gradient() accumulates partial derivatives back through them:
textbook reverse-mode differentiation. Arrays are numpy's, of objects.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import mpmath
import numpy as np
from torch import Tensor

DIGITS = 50

FIFTY: Any = mpmath.mp.clone()
FIFTY.dps = DIGITS
"""The mpmath context of all numbers here."""

_order = count()


@contextmanager
def more_digits(number: int) -> Iterator[None]:
    """Compute with `number` more digits inside the block."""
    FIFTY.dps = DIGITS + number
    try:
        yield
    finally:
        FIFTY.dps = DIGITS


def _entry_by_entry(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Let an array handle an operation with it, which calls back for each of its entries."""

    def of_both(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else operation(self, other)

    return of_both


class Number:
    """A value of fifty digits, and its partial derivatives with respect to the numbers it was computed from."""

    __slots__ = ("order", "partials", "value")

    def __init__(self, value: Any, partials: Sequence[tuple["Number", Any]] = ()):
        self.value = value if type(value) is FIFTY.mpf else FIFTY.mpf(value)
        self.partials = partials
        self.order = next(_order)

    @_entry_by_entry
    def __add__(self, other: Any) -> "Number":
        if isinstance(other, Number):
            return Number(self.value + other.value, ((self, 1), (other, 1)))
        return Number(self.value + other, ((self, 1),))

    @_entry_by_entry
    def __sub__(self, other: Any) -> "Number":
        if isinstance(other, Number):
            return Number(self.value - other.value, ((self, 1), (other, -1)))
        return Number(self.value - other, ((self, 1),))

    @_entry_by_entry
    def __mul__(self, other: Any) -> "Number":
        if isinstance(other, Number):
            return Number(self.value * other.value, ((self, other.value), (other, self.value)))
        return Number(self.value * other, ((self, other),))

    @_entry_by_entry
    def __truediv__(self, other: Any) -> "Number":
        if isinstance(other, Number):
            quotient = self.value / other.value
            return Number(quotient, ((self, 1 / other.value), (other, -quotient / other.value)))
        return Number(self.value / other, ((self, FIFTY.mpf(1) / other),))

    @_entry_by_entry
    def __radd__(self, other: Any) -> "Number":
        return self + other

    @_entry_by_entry
    def __rsub__(self, other: Any) -> "Number":
        return Number(other - self.value, ((self, -1),))

    @_entry_by_entry
    def __rmul__(self, other: Any) -> "Number":
        return self * other

    @_entry_by_entry
    def __rtruediv__(self, other: Any) -> "Number":
        quotient = other / self.value
        return Number(quotient, ((self, -quotient / self.value),))

    def __neg__(self) -> "Number":
        return Number(-self.value, ((self, -1),))


def gradient(of: Number, by: Iterable[Number]) -> list[Any]:
    """Return d of / d x for each x in `by`, as numbers of fifty digits."""
    reached, waiting = {id(of): of}, [of]
    while waiting:
        for x, _ in waiting.pop().partials:
            if id(x) not in reached:
                reached[id(x)] = x
                waiting.append(x)
    bars = {id(of): FIFTY.mpf(1)}
    for x in sorted(reached.values(), key=lambda x: -x.order):
        bar = bars[id(x)]
        for source, partial in x.partials:
            bars[id(source)] = bars.get(id(source), 0) + bar * partial
    return [bars.get(id(x), FIFTY.mpf(0)) for x in by]


def plain(x: Any) -> Any:
    """Return the value of a Number, and anything else unchanged."""
    return x.value if isinstance(x, Number) else x


def _function(value: Callable[[Any], Any], slope: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Make a function f of one number work on arrays, entry by entry. slope(x, f(x)) is its derivative."""

    def of_one(x: Any) -> Any:
        at = FIFTY.convert(plain(x))
        found = value(at)
        return Number(found, ((x, slope(at, found)),)) if isinstance(x, Number) else found

    return np.frompyfunc(of_one, 1, 1)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + FIFTY.exp(-x))


class FiftyDigits:
    """The arithmetic of formulas (symplectic_bench.problems.formula) over arrays of these numbers."""

    @property
    def pi(self) -> Any:
        return FIFTY.mpf(FIFTY.pi)

    @staticmethod
    def plain(x: Any) -> Any:
        """Return the values of Numbers, detached from what they were computed from."""
        return np.frompyfunc(plain, 1, 1)(x) if isinstance(x, np.ndarray) else plain(x)

    exp = staticmethod(_function(FIFTY.exp, lambda x, y: y))
    log = staticmethod(_function(FIFTY.log, lambda x, y: 1 / x))
    sqrt = staticmethod(_function(FIFTY.sqrt, lambda x, y: 1 / (2 * y)))
    sin = staticmethod(_function(FIFTY.sin, lambda x, y: FIFTY.cos(x)))
    cos = staticmethod(_function(FIFTY.cos, lambda x, y: -FIFTY.sin(x)))
    tanh = staticmethod(_function(FIFTY.tanh, lambda x, y: 1 - y * y))
    sigmoid = staticmethod(_function(_sigmoid, lambda x, y: y * (1 - y)))
    softplus = staticmethod(_function(lambda x: FIFTY.log(1 + FIFTY.exp(x)), lambda x, y: _sigmoid(x)))
    stack = staticmethod(np.stack)
    concatenate = staticmethod(np.concatenate)

    @staticmethod
    def expm(A: np.ndarray) -> np.ndarray:
        """Return e^A by the Taylor series of A / 2^m, squared m times. Its derivative is the Frechet derivative."""
        norm = max(sum(abs(plain(x)) for x in row) for row in A)
        halvings = max(0, int(FIFTY.ceil(FIFTY.log(norm, 2))) + 8) if norm else 0
        small = A / FIFTY.mpf(2**halvings)  # of norm at most 2^-8
        terms = int(FIFTY.dps * np.log(10) / np.log(2**8)) + 4
        found = identity = array(np.eye(len(A)))
        for n in range(terms, 0, -1):
            found = identity + (small @ found) / FIFTY.mpf(n)
        for _ in range(halvings):
            found = found @ found
        return found


def array(x: Any) -> np.ndarray:
    """Convert doubles to an array of plain fifty-digit numbers, exactly."""
    doubles = x.detach().double().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x, dtype=float)
    return np.frompyfunc(FIFTY.mpf, 1, 1)(doubles) if doubles.ndim else np.asarray(FIFTY.mpf(float(doubles)), object)


def variables(x: Any) -> np.ndarray:
    """Convert doubles to an array of Numbers, with respect to which one can differentiate."""
    return np.asarray(np.frompyfunc(Number, 1, 1)(array(x)), dtype=object)
