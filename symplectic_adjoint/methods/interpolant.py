"""Dense output: the interpolants of Runge-Kutta methods, as polynomials in sigma with exact coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import comb
from typing import Any, NamedTuple

from symplectic_adjoint.methods.coefficients import FloatRow, Row, effective_stages, to_floats


@dataclass(frozen=True)
class Interpolant:
    """Dense output b_i(sigma) = sum_p weights[i][p] sigma^(p+1), with one row of `weights` per extended row.

    `order` is the order of the interpolant: its local error is O(h^(order+1)) at every sigma. `A` and `c` are
    the rows that it adds below the method's own; row i of the extended tableau has i entries. `parts` are those of the
    added rows, if the method is additive.
    """

    order: int
    weights: tuple[Row, ...]
    A: tuple[Row, ...] = ()
    c: Row = ()
    parts: tuple[int, ...] = ()

    @cached_property
    def rows(self) -> int:
        """Number of leading rows of the extended tableau that dense output needs."""
        return max((i for i, row in enumerate(self.weights, start=1) if any(row)), default=0)

    def weights_at(self, sigma: Any) -> tuple[Any, ...]:
        """Return b_i(sigma) for every row i, each of sigma's type: a float, or a number-like 0-dim tensor.

        At sigma = 1.0 these are exactly the floats b_i.
        """
        near = self._nearest_end(sigma)
        return tuple(_horner(falling, sigma - near.centre) for falling in near.weights)

    @cached_property
    def used_rows(self) -> tuple[int, ...]:
        """The rows whose weights are not zero at every sigma."""
        return tuple(i for i, row in enumerate(self.weights) if any(row))

    @cached_property
    def by_power(self) -> tuple[list[FloatRow], list[FloatRow]]:
        """The b_i of the used rows as polynomials in sigma, to be used up to 0.5, and in sigma - 1, beyond.

        For each power from the highest to 0, the rows' coefficients.
        """
        start, end = (
            list(zip(*(near.weights[i] for i in self.used_rows), strict=True))
            for near in (self._about_start, self._about_end)
        )
        return start, end

    def slopes_at(self, sigma: Any) -> tuple[Any, ...]:
        """Return the derivative b_i'(sigma) for every row i, each of sigma's type."""
        near = self._nearest_end(sigma)
        return tuple(_horner(falling, sigma - near.centre) for falling in near.slopes)

    def _nearest_end(self, sigma: Any) -> "_Expansion":
        return self._about_end if sigma > 0.5 else self._about_start

    @cached_property
    def _about_start(self) -> "_Expansion":
        return _expand(self.weights, centre=0)

    @cached_property
    def _about_end(self) -> "_Expansion":
        return _expand(self.weights, centre=1)


class _Expansion(NamedTuple):
    """The b_i and their derivatives as polynomials in sigma - centre, highest power first.

    Polynomials in sigma alone lose up to three digits near sigma = 1: dop853's coefficients alternate in sign
    and exceed 500.
    """

    centre: int
    weights: tuple[FloatRow, ...]
    slopes: tuple[FloatRow, ...]


def hermite(b: Row, A: tuple[Row, ...], c: Row, order: int = 3, additive: bool = False) -> Interpolant:
    """Return the cubic Hermite interpolant, which matches the values and slopes at both ends of the step.

    It adds the row of f at the end of the step if the method lacks it, or if it is additive the rows of both parts of
    f there. order: the method's order, but at most 3.
    """
    s, rows = effective_stages(b), len(A)
    if additive:
        ends = (b, (*b, Fraction(0)))
        weights = hermite_weights(b, rows + 2, first=(0, 1), end=(rows, rows + 1))
        return Interpolant(order, weights, A=ends, c=(Fraction(1),) * 2, parts=(1, 0))
    weights = hermite_weights(b, rows=max(rows, s + 1))
    if rows > s and c[s] == 1:
        return Interpolant(order, weights)
    return Interpolant(order, weights, A=(b[:s],), c=(Fraction(1),))


def linear(b: Row) -> Interpolant:
    """Return the straight line through both ends of the step, an interpolant of order 1."""
    return Interpolant(order=1, weights=tuple((b_i,) for b_i in b))


def hermite_weights(
    b: Row,
    rows: int,
    corrections: Sequence[Row] = (),
    first: tuple[int, ...] = (0,),
    end: tuple[int, ...] | None = None,
) -> tuple[Row, ...]:
    """Return the weights of the cubic Hermite interpolant, plus corrections F_3, F_4, ... that vanish at both ends.

    Hairer's nested form (Hairer, Norsett and Wanner I, section II.6), here in units of h k:

        y(sigma) = y + sigma (F_0 + (1 - sigma) (F_1 + sigma (F_2 + (1 - sigma) (F_3 + sigma (F_4 + ...)))))
        F_0 = b     F_1 = e_first - b     F_2 = 2 b - e_first - e_end

    `rows` is the number of rows of the extended tableau. `first` and `end` are the rows that sum to f at the start and
    at the end of the step: by default row 0 and row `stages`. Entry p of a returned row is the coefficient of
    sigma^(p+1).
    """
    at_end = (effective_stages(b),) if end is None else end

    def row_weights(i: int) -> Row:
        b_i = b[i] if i < len(b) else Fraction(0)
        e_first, e_end = int(i in first), int(i in at_end)
        F = [b_i, e_first - b_i, 2 * b_i - e_first - e_end, *(row[i] for row in corrections)]
        polynomial = [Fraction(0)]
        for n in reversed(range(len(F))):  # from the innermost bracket outwards: add F_n, then multiply
            polynomial[0] += F[n]
            by_sigma = [Fraction(0), *polynomial]
            difference = [p - q for p, q in zip([*polynomial, 0], by_sigma, strict=True)]
            polynomial = by_sigma if n % 2 == 0 else difference
        return tuple(polynomial[1:])

    return tuple(row_weights(i) for i in range(rows))


def _expand(weights: tuple[Row, ...], centre: int) -> _Expansion:
    """Expand the polynomials about the centre exactly, then round their coefficients to floats."""

    def coefficient(row: Row, n: int) -> Fraction:
        terms = (comb(p, n) * w * centre ** (p - n) for p, w in enumerate(row, start=1) if p >= n)
        return sum(terms, Fraction(0))

    shifted = [[coefficient(row, n) for n in range(len(row) + 1)] for row in weights]
    return _Expansion(
        centre,
        weights=tuple(to_floats(row[::-1]) for row in shifted),
        slopes=tuple(to_floats([n * w for n, w in enumerate(row)][:0:-1]) for row in shifted),
    )


def _horner(falling: FloatRow, x: Any) -> Any:
    """Evaluate the polynomial in x with these coefficients, highest power first."""
    value = 0.0 * x  # so that a constant polynomial has x's type too
    for coefficient in falling:
        value = value * x + coefficient
    return value
