"""Explicit Runge-Kutta methods as data: frozen, without torch, in rational numbers, validated on construction.

Notation of Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993), sections II.1 and
II.6, with rows counted from 0:

    Y_i = y + h sum_{j<i} a_ij k_j     k_i = f(t + c_i h, Y_i)     y(t + sigma h) = y + h sum_i b_i(sigma) k_i

The *extended* tableau is the method's own rows followed by those that its interpolant adds. Rows 0 to
`stages` - 1 make the step. Row `stages`, if there is one, is f at the end of the step, with a = b and c = 1:
either the method has it already (FSAL) or the interpolant adds it. The rows after it are the interpolant's
extra stages.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from numbers import Rational
from typing import NamedTuple

from symplectic_adjoint.errors import InvalidTableau
from symplectic_adjoint.methods.coefficients import FloatRow, Row, effective_stages, to_floats
from symplectic_adjoint.methods.interpolant import Interpolant, hermite
from symplectic_adjoint.methods.stability import Stability

FloatTerms = tuple[tuple[int, float], ...]

ROUNDED_RESIDUAL = Fraction(1, 10**15)
"""Largest error allowed in the sums of a method published with rounded coefficients: a few ulp of a double."""


class TableauFloats(NamedTuple):
    """A tableau in floats: `A` and `c` are extended, `b` is cut to the effective stages."""

    A: tuple[FloatRow, ...]
    c: FloatRow
    b: FloatRow
    b_error: FloatRow | None
    b_error_low: FloatRow | None


class Terms(NamedTuple):
    """The nonzero coefficients, each with its index: the terms of the sums in a step."""

    A: tuple[FloatTerms, ...]
    """Row i holds the pairs (j, a_ij), of the extended tableau."""
    columns: tuple[FloatTerms, ...]
    """Column i holds the pairs (j, a_ji)."""
    b: FloatTerms
    errors: tuple[FloatTerms, ...]
    """b_error and b_error_low, if the method has them."""
    pushes: tuple[FloatTerms, ...]
    """Column i holds the sums of a step that k_i is a term of: the states by their rows, those below s, then b as row
    s, then the errors."""


@dataclass(frozen=True)
class ButcherTableau:
    """An explicit Runge-Kutta method.

    `A` is the ragged strictly lower triangle: row i has i entries, row 0 is (). `b`, `c` and the error
    weights have one entry for each row of `A`. `b_error` is b - b_hat, or None if the method has no error
    estimate. `error_order` is the order of b_hat; if the norms of two estimates are combined
    (`b_error_low`), the combination falls as h^(error_order + 1). A method without an interpolant of its own
    gets the cubic Hermite one. `exact=False` marks a method published with rounded coefficients: its sums may
    be off by ROUNDED_RESIDUAL, whereas those of other methods must be exact. `also_called` are its names elsewhere,
    which are not accepted but understood.

    Raises InvalidTableau, naming the row, if the coefficients are inconsistent.
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
    # None only until __post_init__ sets the cubic Hermite interpolant, hence the type.
    interpolant: Interpolant = field(default=None)  # pyright: ignore[reportAssignmentType]
    exact: bool = True
    also_called: tuple[str, ...] = ()

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
        """s, the effective stages: the rows up to the last one with a nonzero b_i."""
        return effective_stages(self.b)

    @cached_property
    def fsal(self) -> bool:
        """Whether the method has row `stages`: f at the end of the step, the first f call of the next step."""
        return len(self.A) > self.stages

    @property
    def adaptive(self) -> bool:
        """Whether the method has an error estimate."""
        return self.b_error is not None

    @property
    def interpolates(self) -> bool:
        """Whether dense output is as accurate as the step. If not, a step must end on each output."""
        return self.interpolant.order >= self.order - 1

    @property
    def controller_order(self) -> int:
        """The power p such that the error estimate is O(h^p). Raises ValueError if there is no estimate."""
        if self.error_order is None:
            raise ValueError(f"{self.name} has no error estimate; give a step size, or use an adaptive method")
        return self.error_order + 1

    @property
    def extended_A(self) -> tuple[Row, ...]:
        """The method's own rows, then those that its interpolant adds."""
        return self.A + self.interpolant.A

    @property
    def extended_c(self) -> Row:
        """The nodes of `extended_A`."""
        return self.c + self.interpolant.c

    @cached_property
    def stability(self) -> Stability:
        """How long a step may be on a stiff problem, and which of the stages that a step evaluates show it."""
        rows = max([self.stages, *(1 + terms[-1][0] for terms in self.terms.errors)])
        return Stability.of(self.A[:rows], self.b[:rows], self.c[:rows])

    @cached_property
    def floats(self) -> TableauFloats:
        """The coefficients, each rounded to a float once."""
        return TableauFloats(
            A=tuple(to_floats(row) for row in self.extended_A),
            c=to_floats(self.extended_c),
            b=to_floats(self.b[: self.stages]),
            b_error=None if self.b_error is None else to_floats(self.b_error),
            b_error_low=None if self.b_error_low is None else to_floats(self.b_error_low),
        )

    @cached_property
    def terms(self) -> Terms:
        """The nonzero coefficients, as floats."""
        A, b, s = self.floats.A, self.floats.b, self.stages
        errors = [e for e in (self.floats.b_error, self.floats.b_error_low) if e is not None]
        sums = [*A[:s], b, *errors]
        return Terms(
            A=tuple(map(_nonzero, A)),
            columns=tuple(tuple((j, A[j][i]) for j in range(i + 1, len(A)) if A[j][i] != 0.0) for i in range(len(A))),
            b=_nonzero(b),
            errors=tuple(map(_nonzero, errors)),
            pushes=tuple(
                tuple((n, row[i]) for n, row in enumerate(sums) if i < len(row) and row[i] != 0.0)
                for i in range(len(self.A))
            ),
        )


def _nonzero(row: FloatRow) -> FloatTerms:
    return tuple((i, x) for i, x in enumerate(row) if x != 0.0)


def _refusal(method: ButcherTableau, message: str) -> InvalidTableau:
    return InvalidTableau(f"{method.name}: {message}")


def _show(number: Fraction) -> str:
    """Write a short fraction as it is, a long one as a decimal."""
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
    """Raise InvalidTableau if row `stages` exists and is not f at the end of the step."""
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
