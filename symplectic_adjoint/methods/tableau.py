"""Explicit Runge-Kutta methods as data: frozen, torch-free, in rationals, validated on construction.

Notation of Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993), sections II.1 and
II.6, with rows counted from 0:

    Y_i = y + h sum_{j<i} a_ij k_j     k_i = f(t + c_i h, Y_i)     y(t + sigma h) = y + h sum_i b_i(sigma) k_i

The *extended* tableau is the method's own rows followed by those that its interpolant adds. Its rows 0 to
`stages` - 1 make the step. If there is a further row, row number `stages` is f at the step's end, with a = b
and c = 1: the method has it already (FSAL) or the interpolant adds it. Rows after it are the interpolant's
extra stages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import comb
from numbers import Rational
from typing import Any, NamedTuple

from symplectic_adjoint.errors import InvalidTableau

Row = tuple[Fraction, ...]
FloatRow = tuple[float, ...]
FloatTerms = tuple[tuple[int, float], ...]

# By how much the sums of a method published as rounded coefficients may miss: a few roundings of a double.
ROUNDED_RESIDUAL = Fraction(1, 10**15)


@dataclass(frozen=True)
class Interpolant:
    """Dense output b_i(sigma) = sum_p weights[i][p] sigma^(p+1), a row of `weights` for each extended row.

    `order` is the interpolant's: its local error is O(h^(order+1)) at every sigma. `A` and `c` are the rows
    that it adds below the method's own; the row with index i in the extended tableau has i entries.
    """

    order: int
    weights: tuple[Row, ...]
    A: tuple[Row, ...] = ()
    c: Row = ()

    @cached_property
    def rows(self) -> int:
        """How many leading rows of the extended tableau dense output needs."""
        return max((i for i, row in enumerate(self.weights, start=1) if any(row)), default=0)

    def weights_at(self, sigma: Any) -> tuple[Any, ...]:
        """b_i(sigma) for every row i, each of sigma's type: a float or a number-like object (a 0-dim tensor).

        At sigma = 1.0 they are exactly the float b_i.
        """
        near = self._nearest_end(sigma)
        return tuple(_horner(falling, sigma - near.centre) for falling in near.weights)

    def slopes_at(self, sigma: Any) -> tuple[Any, ...]:
        """The derivative b_i'(sigma) for every row i, each of sigma's type."""
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
    """The b_i and their derivatives as polynomials in sigma - centre, the highest power first.

    Powers of sigma alone lose up to three digits near sigma = 1: dop853's coefficients alternate in sign and
    exceed 500.
    """

    centre: int
    weights: tuple[FloatRow, ...]
    slopes: tuple[FloatRow, ...]


class TableauFloats(NamedTuple):
    """A tableau as a solver reads it: `A` and `c` extended, `b` cut to the effective stages."""

    A: tuple[FloatRow, ...]
    c: FloatRow
    b: FloatRow
    b_error: FloatRow | None
    b_error_low: FloatRow | None


class Terms(NamedTuple):
    """The coefficients that are not zero, each with its index: what the sums of a step go through."""

    A: tuple[FloatTerms, ...]
    """Row i: (j, a_ij), of the extended tableau."""
    columns: tuple[FloatTerms, ...]
    """Column i: (j, a_ji)."""
    b: FloatTerms
    errors: tuple[FloatTerms, ...]
    """b_error, and b_error_low, as far as there are any."""


@dataclass(frozen=True)
class ButcherTableau:
    """An explicit Runge-Kutta method. Coefficients that are none raise InvalidTableau, which names the row.

    `A` is the ragged strictly lower triangle: row i has i entries, row 0 is (). `b`, `c` and the error
    weights have one entry for each row of `A`. `b_error` is b - b_hat, None without an error estimate.
    `error_order` is the order of b_hat or, where the norms of two estimates are combined (`b_error_low`),
    one less than the power of h by which the combination falls. A method without an interpolant of its own
    gets the cubic Hermite one. `exact=False` says that the method was published as rounded coefficients:
    its sums may miss by ROUNDED_RESIDUAL, those of others by nothing.
    """

    name: str
    order: int
    A: tuple[Row, ...]
    b: Row
    c: Row
    source: str
    b_error: Row | None = None
    b_error_low: Row | None = None
    error_order: int | None = None
    # Left out, it is set to the cubic Hermite one on construction: who reads the field finds an Interpolant.
    interpolant: Interpolant = field(default=None)  # pyright: ignore[reportAssignmentType]
    exact: bool = True

    def __post_init__(self) -> None:
        _check_shape(self)
        _check_sums(self)
        _check_end_row(self, self.A, self.c)
        if self.interpolant is None:
            cubic = hermite(self.b, self.A, self.c, order=min(3, self.order))
            object.__setattr__(self, "interpolant", cubic)
        else:
            _check_interpolant_shape(self)
            _check_end_row(self, self.extended_A, self.extended_c)
            _check_interpolant_sums(self)

    @cached_property
    def stages(self) -> int:
        """s, the effective stages: the leading rows up to the last one that b uses."""
        return _effective_stages(self.b)

    @cached_property
    def fsal(self) -> bool:
        """Whether the method itself ends with f at the step's end, the first f call of the next step."""
        return len(self.A) > self.stages

    @property
    def adaptive(self) -> bool:
        """Whether the method estimates its error."""
        return self.b_error is not None

    @property
    def interpolates(self) -> bool:
        """Whether dense output is as accurate as the step; if not, a step has to end on each output."""
        return self.interpolant.order >= self.order - 1

    @property
    def controller_order(self) -> int:
        """The power of h by which the error estimate falls. Raises ValueError where there is no estimate."""
        if self.error_order is None:
            raise ValueError(f"{self.name} has no error estimate; give a step size, or take an adaptive method")
        return self.error_order + 1

    @property
    def extended_A(self) -> tuple[Row, ...]:
        """The method's rows, then those that its interpolant adds."""
        return self.A + self.interpolant.A

    @property
    def extended_c(self) -> Row:
        """The nodes of `extended_A`."""
        return self.c + self.interpolant.c

    @cached_property
    def floats(self) -> TableauFloats:
        """The coefficients rounded to floats, once."""
        return TableauFloats(
            A=tuple(_floats(row) for row in self.extended_A),
            c=_floats(self.extended_c),
            b=_floats(self.b[: self.stages]),
            b_error=None if self.b_error is None else _floats(self.b_error),
            b_error_low=None if self.b_error_low is None else _floats(self.b_error_low),
        )

    @cached_property
    def terms(self) -> Terms:
        A, b = self.floats.A, self.floats.b
        return Terms(
            A=tuple(map(_nonzero, A)),
            columns=tuple(tuple((j, A[j][i]) for j in range(i + 1, len(A)) if A[j][i] != 0.0) for i in range(len(A))),
            b=_nonzero(b),
            errors=tuple(_nonzero(e) for e in (self.floats.b_error, self.floats.b_error_low) if e is not None),
        )


def hermite(b: Row, A: tuple[Row, ...], c: Row, order: int = 3) -> Interpolant:
    """The cubic through both ends of the step with f's slopes there; its order is 3, or the method's if less.

    Adds the row of f at the step's end where the method lacks it.
    """
    s = _effective_stages(b)
    weights = hermite_weights(b, rows=max(len(A), s + 1))
    if len(A) > s and c[s] == 1:
        return Interpolant(order, weights)
    return Interpolant(order, weights, A=(b[:s],), c=(Fraction(1),))


def linear(b: Row) -> Interpolant:
    """The straight line through both ends of the step; its order is 1."""
    return Interpolant(order=1, weights=tuple((b_i,) for b_i in b))


def hermite_weights(b: Row, rows: int, corrections: Sequence[Row] = ()) -> tuple[Row, ...]:
    """Weights of the cubic Hermite interpolant, plus corrections F_3, F_4, ... that vanish at both ends.

    Hairer's nested form (Hairer, Norsett and Wanner I, section II.6), here in units of h k:

        y(sigma) = y + sigma (F_0 + (1 - sigma) (F_1 + sigma (F_2 + (1 - sigma) (F_3 + sigma (F_4 + ...)))))
        F_0 = b     F_1 = e_first - b     F_2 = 2 b - e_first - e_end

    `rows` is the length of the extended tableau; entry p of a returned row is the coefficient of sigma^(p+1).
    """
    s = _effective_stages(b)

    def row_weights(i: int) -> Row:
        b_i = b[i] if i < len(b) else Fraction(0)
        first, end = int(i == 0), int(i == s)
        F = [b_i, first - b_i, 2 * b_i - first - end, *(row[i] for row in corrections)]
        polynomial = [Fraction(0)]
        for n in reversed(range(len(F))):  # from the innermost bracket outwards: add F_n, then its factor
            polynomial[0] += F[n]
            by_sigma = [Fraction(0), *polynomial]
            difference = [p - q for p, q in zip([*polynomial, 0], by_sigma, strict=True)]
            polynomial = by_sigma if n % 2 == 0 else difference
        return tuple(polynomial[1:])

    return tuple(row_weights(i) for i in range(rows))


def _effective_stages(b: Row) -> int:
    return max((i for i, weight in enumerate(b, start=1) if weight), default=0)


def _expand(weights: tuple[Row, ...], centre: int) -> _Expansion:
    """Shifts the polynomials to the centre, exactly, before they are rounded to floats."""

    def coefficient(row: Row, n: int) -> Fraction:
        terms = (comb(p, n) * w * centre ** (p - n) for p, w in enumerate(row, start=1) if p >= n)
        return sum(terms, Fraction(0))

    shifted = [[coefficient(row, n) for n in range(len(row) + 1)] for row in weights]
    return _Expansion(
        centre,
        weights=tuple(_floats(row[::-1]) for row in shifted),
        slopes=tuple(_floats([n * w for n, w in enumerate(row)][:0:-1]) for row in shifted),
    )


def _horner(falling: FloatRow, x: Any) -> Any:
    """The polynomial in x with these coefficients, highest power first."""
    value = 0.0 * x  # so that a constant polynomial has x's type too
    for coefficient in falling:
        value = value * x + coefficient
    return value


def _nonzero(row: FloatRow) -> FloatTerms:
    return tuple((i, x) for i, x in enumerate(row) if x != 0.0)


def _floats(row: Sequence[Fraction]) -> FloatRow:
    return tuple(float(entry) for entry in row)


def _refusal(method: ButcherTableau, message: str) -> InvalidTableau:
    return InvalidTableau(f"{method.name}: {message}")


def _show(number: Fraction) -> str:
    """A short fraction as it is, a long one as a decimal."""
    return str(number) if len(str(number)) <= 12 else f"{float(number):.17g}"


def _error_weights(method: ButcherTableau) -> list[tuple[str, Row]]:
    named = [("b_error", method.b_error), ("b_error_low", method.b_error_low)]
    return [(name, weights) for name, weights in named if weights is not None]


def _check_sum(method: ButcherTableau, what: str, terms: Row, expected: Fraction | int) -> None:
    got = sum(terms, Fraction(0))
    residual = got - expected
    allowed = Fraction(0) if method.exact else ROUNDED_RESIDUAL
    if abs(residual) > allowed:
        raise _refusal(
            method,
            f"{what} must sum to {_show(Fraction(expected))}, got {_show(got)}; correct the coefficients "
            f"(off by {float(residual):.3g}, exact={method.exact} allows {float(allowed):.3g})",
        )


def _check_row(method: ButcherTableau, what: str, row: Row, length: int) -> None:
    if len(row) != length:
        raise _refusal(method, f"{what} must have {length} entries, got {len(row)}")
    for entry in row:
        if not isinstance(entry, Rational):
            raise _refusal(method, f"{what} holds the {type(entry).__name__} {entry!r}; give a fractions.Fraction")


def _check_shape(method: ButcherTableau) -> None:
    for i, row in enumerate(method.A):
        _check_row(method, f"row {i} of A (strictly lower)", row, length=i)
    for what, row in [("b", method.b), ("c", method.c), *_error_weights(method)]:
        _check_row(method, f"{what} (one entry for each row of A)", row, length=len(method.A))
    if (method.b_error is None) != (method.error_order is None):
        raise _refusal(method, "b_error and error_order belong together; give both or neither")
    if method.b_error is None and method.b_error_low is not None:
        raise _refusal(method, "b_error_low is combined with b_error, which is missing; give both or neither")


def _check_sums(method: ButcherTableau) -> None:
    for i, (row, c_i) in enumerate(zip(method.A, method.c, strict=True)):
        _check_sum(method, f"row {i} of A", row, c_i)
    _check_sum(method, "b", method.b, 1)
    for what, weights in _error_weights(method):
        _check_sum(method, what, weights, 0)


def _check_interpolant_shape(method: ButcherTableau) -> None:
    dense, own = method.interpolant, len(method.A)
    for i, row in enumerate(dense.A, start=own):
        _check_row(method, f"row {i} of the extended A (strictly lower)", row, length=i)
    _check_row(method, "the interpolant's c (one entry for each row it adds)", dense.c, length=len(dense.A))
    if len(dense.weights) != own + len(dense.A):
        rows = own + len(dense.A)
        raise _refusal(method, f"the interpolant must weigh all {rows} extended rows, got {len(dense.weights)}")
    for i, row in enumerate(dense.weights):
        powers = len(dense.weights[0])
        _check_row(method, f"row {i} of the interpolant's weights (powers as in row 0)", row, length=powers)


def _check_end_row(method: ButcherTableau, A: tuple[Row, ...], c: Row) -> None:
    """Row `stages`, if there is one, is f at the step's end."""
    s = method.stages
    if len(A) > s and (A[s] != method.b[:s] or c[s] != 1):
        raise _refusal(
            method,
            f"b does not use row {s}, so that row must be f at the step's end: a = b and c = 1; "
            f"got c = {_show(c[s])} and a = ({', '.join(map(_show, A[s]))}); remove or correct it",
        )


def _check_interpolant_sums(method: ButcherTableau) -> None:
    dense, own = method.interpolant, len(method.A)
    for i, (row, c_i) in enumerate(zip(dense.A, dense.c, strict=True), start=own):
        _check_sum(method, f"row {i} of the extended A", row, c_i)
    for i, row in enumerate(dense.weights):
        b_i = method.b[i] if i < own else 0
        _check_sum(method, f"row {i} of the interpolant's weights (b at sigma = 1)", row, b_i)
    for power, column in enumerate(zip(*dense.weights, strict=True), start=1):
        _check_sum(method, f"the interpolant's weights of sigma^{power}", column, int(power == 1))
