"""Runge-Kutta methods as data: frozen, without torch, in rational numbers, validated on construction.

Notation of Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993), sections II.1 and
II.6, with rows counted from 0:

    Y_i = y + h sum_j a_ij k_j     k_i = f(t + c_i h, Y_i)
    y(t + sigma h) = y + h sum_i b_i(sigma) k_i

g_i = a_ii is the diagonal. If a_ij = 0 for all j > i, a stage with g_i = 0 is explicit and another one an equation;
else the stages are *coupled*, one system of equations. An additive (IMEX) method is for f = f_E + f_I: each row
evaluates one of the two, its *part* (Ascher, Ruuth and Spiteri, Appl. Numer. Math. 25 (1997) 151-167).

The *extended* tableau is the method's own rows followed by those that its interpolant adds. Rows 0 to `stages` - 1 make
the step. Row `stages`, if there is one, is f at the end of the step, with a = b and c = 1: either the method has it
already (FSAL) or the interpolant adds it. The rows after it are the interpolant's extra stages. Rows that an
interpolant adds are explicit.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from numbers import Rational
from typing import NamedTuple

from symplectic_adjoint.errors import InvalidTableau
from symplectic_adjoint.methods.coefficients import FloatRow, Row, effective_stages, show, to_floats
from symplectic_adjoint.methods.interpolant import Interpolant, hermite
from symplectic_adjoint.methods.stability import Stability

FloatTerms = tuple[tuple[int, float], ...]

PARTS = ("explicit", "implicit")
"""What the entries of `parts` stand for, in their order."""

ROUNDED_RESIDUAL = Fraction(1, 10**15)
"""Largest error allowed in the sums of a method published with rounded coefficients: a few ulp of a double."""


class TableauFloats(NamedTuple):
    """A tableau in floats: `A`, `c`, `diagonal` and `matrix` are extended, `b` is cut to the effective stages."""

    A: tuple[FloatRow, ...]
    c: FloatRow
    b: FloatRow
    b_error: FloatRow | None
    b_error_low: FloatRow | None
    diagonal: FloatRow
    matrix: tuple[FloatRow, ...]


class Terms(NamedTuple):
    """The nonzero coefficients, each with its index: the terms of the sums in a step."""

    A: tuple[FloatTerms, ...]
    """Row i holds the pairs (j, a_ij) with j < i, of the extended tableau."""
    columns: tuple[FloatTerms, ...]
    """Column i holds the pairs (j, a_ji) with j > i."""
    b: FloatTerms
    errors: tuple[FloatTerms, ...]
    """b_error and b_error_low, if the method has them."""
    pushes: tuple[FloatTerms, ...]
    """Column i holds the sums of a step that k_i is a term of: the states by their rows, those below s, then b as row
    s, then the errors."""


@dataclass(frozen=True)
class ButcherTableau:
    """A Runge-Kutta method: explicit, with a `diagonal` diagonally implicit, with `upper` fully, with `parts` additive.

    `A` is the ragged strictly lower triangle: row i has i entries, row 0 is (). `b`, `c`, `diagonal`, `parts` and the
    error weights have one entry for each row of `A`. `diagonal` holds the g_i = a_ii, zeros for explicit stages; None
    makes the method explicit. `upper` is the strictly upper triangle, row i with s - 1 - i entries; None unless the
    stages are coupled. Row i of `A`, g_i and row i of `upper` sum to c_i.

    `b_error` is b - b_hat, or None if the method has no error estimate. `error_order` is the lower one of the orders of
    b and b_hat, so that the estimate falls as h^(error_order + 1); if the norms of two estimates are combined
    (`b_error_low`), the combination does. `filtered_error` marks an estimate that grows without bound as z = h lambda
    does: it is to be multiplied by (I - h g J)^-1 (Hosea and Shampine, Appl. Numer. Math. 20 (1996) 21-37).

    `parts` makes the method additive: 0 for the rows that evaluate the explicit function, 1 for those that evaluate the
    implicit one. Stage i of such a method is two rows with the same state: row 2i is the implicit part, with g_i on the
    diagonal, and row 2i + 1 the explicit part, whose column 2i holds g_i. The sums above hold for each part.

    A method without an interpolant of its own gets the cubic Hermite one. `exact=False` marks a method with rounded
    coefficients: its sums may be off by ROUNDED_RESIDUAL, whereas those of other methods must be exact. `aliases` are
    further names that are accepted; `also_called` are names elsewhere, which are not accepted but understood.

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
    aliases: tuple[str, ...] = ()
    diagonal: Row | None = None
    parts: tuple[int, ...] | None = None
    filtered_error: bool = False
    upper: tuple[Row, ...] | None = None

    def __post_init__(self) -> None:
        _check_shape(self)
        _check_sums(self)
        _check_end_row(self, self.A, self.c)
        if self.interpolant is None:
            _check_starts_with_f(self)
            cubic = hermite(self.b, self.A, self.c, order=min(3, self.order), additive=self.additive)
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
        """Whether the method has row `stages`: f at the end of the step, the first f call of the next step.

        An additive method has not: such a row would be only one part of f.
        """
        return len(self.A) > self.stages and not self.additive

    @property
    def implicit(self) -> bool:
        """Whether some stage is implicit: has a nonzero g_i."""
        return any(self.diagonal or ())

    @property
    def coupled(self) -> bool:
        """Whether the stages are one system of equations."""
        return self.upper is not None

    @property
    def additive(self) -> bool:
        """Whether the method is for a sum of an explicit and an implicit function."""
        return self.parts is not None

    @cached_property
    def stiffly_accurate(self) -> bool:
        """Whether the last of the effective stages is implicit and its state is the end of the step."""
        last = self.stages - 1
        return self.implicit and self.matrix[last] == self.b[: self.stages]

    @cached_property
    def starts_with_slope(self) -> bool:
        """Whether the first stage is f at the start of the step."""
        return not self.additive and self.c[0] == 0 and self.extended_diagonal[0] == 0

    @cached_property
    def needed_stages(self) -> int:
        """The number of stages that the states of all stages are computed from: a last one that is implicit too."""
        return self.stages - (1 if self.extended_diagonal[self.stages - 1] == 0 else 0)

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
        return self.A if self.interpolant is None else self.A + self.interpolant.A

    @property
    def extended_c(self) -> Row:
        """The nodes of `extended_A`."""
        return self.c + self.interpolant.c

    @property
    def extended_diagonal(self) -> Row:
        """The g_i of `extended_A`: zeros for the rows that the interpolant adds, and for explicit methods."""
        own = self.diagonal or (Fraction(0),) * len(self.A)
        return own + (Fraction(0),) * (0 if self.interpolant is None else len(self.interpolant.A))

    @property
    def matrix(self) -> tuple[Row, ...]:
        """The rows a_ij of `extended_A` with the diagonal, j <= i, or with all j if the stages are coupled."""
        A, right = self.extended_A, self.upper or ((),) * len(self.extended_A)
        return tuple((*a, g_i, *upper) for a, g_i, upper in zip(A, self.extended_diagonal, right, strict=True))

    @property
    def extended_parts(self) -> tuple[int, ...] | None:
        """The parts of `extended_A`, or None if the method is not additive."""
        return None if self.parts is None else self.parts + self.interpolant.parts

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
            diagonal=to_floats(self.extended_diagonal),
            matrix=tuple(to_floats(row) for row in self.matrix),
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
            f"{what} must sum to {show(Fraction(expected))}, got {show(got)}; correct the coefficients "
            f"(off by {float(residual):.3g}, exact={method.exact} allows {float(allowed):.3g})",
        )


def _check_sums_by_part(
    method: ButcherTableau, what: str, terms: Row, expected: Fraction | int, parts: tuple[int, ...] | None
) -> None:
    """Check the sum of the terms, or with parts (of as many rows, or more) the sum of each part's terms."""
    if parts is None:
        return _check_sum(method, what, terms, expected)
    for part, called in enumerate(PARTS):
        chosen = tuple(x for x, p in zip(terms, parts, strict=False) if p == part)
        _check_sum(method, f"the {called} part of {what}", chosen, expected)


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
    if method.diagonal is not None:
        _check_row(method, "diagonal (one entry for each row of A)", method.diagonal, length=len(method.A))
        if not method.implicit:
            raise _refusal(method, "diagonal holds only zeros; leave it out of an explicit method")
    if method.parts is not None:
        _check_parts(method, method.parts)
    if method.upper is not None:
        _check_upper(method, method.upper)


def _check_parts(method: ButcherTableau, parts: tuple[int, ...]) -> None:
    if len(parts) != len(method.A):
        raise _refusal(method, f"parts must have {len(method.A)} entries, one for each row of A, got {len(parts)}")
    if not method.implicit:
        raise _refusal(method, "parts belong to an additive method, whose implicit part needs a diagonal; give it")
    if parts != (1, 0) * (len(parts) // 2):
        raise _refusal(
            method, f"parts must alternate, 1 (implicit) and 0 (explicit) for each stage, got {parts}; pair the rows"
        )
    for i in range(0, len(parts), 2):
        g_i, g_next = method.extended_diagonal[i : i + 2]
        if g_next:
            raise _refusal(
                method, f"row {i + 1} is of the explicit part, so its diagonal must be 0, got {show(g_next)}"
            )
        if (*method.A[i], g_i) != method.A[i + 1] or method.c[i] != method.c[i + 1]:
            raise _refusal(method, f"rows {i} and {i + 1} are one stage: give them the same state and node")


def _check_upper(method: ButcherTableau, upper: tuple[Row, ...]) -> None:
    s, dense = len(method.A), method.interpolant
    for wrong, message in (
        (not method.implicit or method.additive, "upper is for fully implicit methods: give a diagonal, and no parts"),
        (len(upper) != s, f"upper must have {s} rows, one for each row of A, got {len(upper)}"),
        (method.stages != s, f"b must use row {s - 1}: coupled stages are solved for together; remove the row"),
        (dense is None or dense.A, "coupled stages need an interpolant that adds no rows; give one"),
    ):
        if wrong:
            raise _refusal(method, message)
    for i, row in enumerate(upper):
        _check_row(method, f"row {i} of upper (strictly upper)", row, length=s - 1 - i)


def _check_starts_with_f(method: ButcherTableau) -> None:
    """Raise InvalidTableau if the cubic Hermite interpolant cannot be had: row 0 is not f at the start."""
    if method.extended_diagonal[0]:
        raise _refusal(
            method, "row 0 is implicit, so the cubic Hermite interpolant has no f at the start; give another"
        )


def _check_sums(method: ButcherTableau) -> None:
    parts = method.parts
    for i, (row, c_i) in enumerate(zip(method.matrix, method.c, strict=False)):
        _check_sums_by_part(method, f"row {i} of A", row, c_i, parts)
    _check_sums_by_part(method, "b", method.b, 1, parts)
    for what, weights in _error_weights(method):
        _check_sums_by_part(method, what, weights, 0, parts)


def _check_interpolant_shape(method: ButcherTableau) -> None:
    dense, own = method.interpolant, len(method.A)
    for i, row in enumerate(dense.A, start=own):
        _check_row(method, f"row {i} of the extended A (strictly lower)", row, length=i)
    _check_row(method, "the interpolant's c (one entry for each row it adds)", dense.c, length=len(dense.A))
    if len(dense.parts) != (len(dense.A) if method.additive else 0):
        raise _refusal(
            method,
            f"the interpolant must give a part to each row that it adds to an additive method, got {dense.parts}",
        )
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
            f"got c = {show(c[s])} and a = ({', '.join(map(show, A[s]))}); remove or correct it",
        )


def _check_interpolant_sums(method: ButcherTableau) -> None:
    dense, own, parts = method.interpolant, len(method.A), method.extended_parts
    for i, (row, c_i) in enumerate(zip(dense.A, dense.c, strict=True), start=own):
        _check_sums_by_part(method, f"row {i} of the extended A", row, c_i, parts)
    for i, row in enumerate(dense.weights):
        b_i = method.b[i] if i < own else 0
        _check_sum(method, f"row {i} of the interpolant's weights (b at sigma = 1)", row, b_i)
    for power, column in enumerate(zip(*dense.weights, strict=True), start=1):
        _check_sums_by_part(method, f"the interpolant's weights of sigma^{power}", column, int(power == 1), parts)
