"""The implicit methods against the theory: order, stability and dense output, in rational arithmetic.

Those of the additive methods are tested with them; what is special about those is in test_imex.py.
"""

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy
import pytest
import sympy

from symplectic_adjoint.errors import InvalidTableau
from symplectic_adjoint.methods.coefficients import root, row
from symplectic_adjoint.methods.interpolant import Interpolant
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS, METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from tests.symplectic_adjoint.methods.stability import (
    NEGLIGIBLE,
    Implicit,
    Polynomial,
    degree,
    denominator,
    e_polynomial,
    implicit_part,
    numerator,
    response,
)
from tests.symplectic_adjoint.methods.trees import OrderConditions, embedded, order_conditions

# kencarp4's explicit part and dense output are published as fractions good to 24 digits (measured: 5e-25). The others
# are computed to 50 digits or more.
ALLOWED = {"kencarp4": Fraction(1, 10**24)}
CLEARLY_VIOLATED = Fraction(1, 10**6)


class Facts(NamedTuple):
    """What the literature says of a method."""

    order: int
    stages: int
    stiffly_accurate: bool
    L_stable: bool
    stage_order: int
    adaptive: bool


EXPECTED = {
    "implicit_euler": Facts(1, 1, True, True, 1, False),
    "implicit_midpoint": Facts(2, 1, False, False, 1, False),
    "crank_nicolson": Facts(2, 2, True, False, 2, False),
    "sdirk2": Facts(2, 2, True, True, 1, True),
    "trbdf2": Facts(2, 3, True, True, 2, True),
    "kvaerno3": Facts(3, 4, True, True, 2, True),
    "kvaerno5": Facts(5, 7, True, True, 2, True),
    "radauIIA3": Facts(3, 2, True, True, 2, False),
    "radauIIA5": Facts(5, 3, True, True, 3, False),
    "gl4": Facts(4, 2, False, False, 2, False),
    "gl6": Facts(6, 3, False, False, 3, False),
    "ars222": Facts(2, 5, True, True, 1, False),
    "kencarp4": Facts(4, 12, False, True, 2, True),
}

LESS_ACCURATE_INSIDE = ("radauIIA5", "gl4", "gl6")
"""Methods whose order exceeds that of their collocation polynomial, s, by more than one."""

every_method = pytest.mark.parametrize("method", IMPLICIT_METHODS.values(), ids=IMPLICIT_METHODS.keys())
adaptive_methods = pytest.mark.parametrize(
    "method", [m for m in IMPLICIT_METHODS.values() if m.adaptive], ids=lambda m: m.name
)


def allowed(method: ButcherTableau) -> Fraction:
    return ALLOWED.get(method.name, NEGLIGIBLE)


# ---- order ----


@every_method
def test_a_method_has_the_order_it_declares_and_no_higher_one(method: ButcherTableau) -> None:
    conditions = order_conditions(method.name)
    assert all(conditions.violation(method.b, n) <= allowed(method) for n in range(1, method.order + 1))
    assert conditions.violation(method.b, method.order + 1) > CLEARLY_VIOLATED


@every_method
def test_dense_output_has_the_order_it_declares_and_no_higher_one(method: ButcherTableau) -> None:
    conditions, order = order_conditions(method.name), method.interpolant.order
    assert all(conditions.dense_violation(n) <= allowed(method) for n in range(1, order + 1))
    assert conditions.dense_violation(order + 1) > CLEARLY_VIOLATED
    assert method.interpolates == (method.name not in LESS_ACCURATE_INSIDE)


@adaptive_methods
def test_the_error_estimate_falls_as_it_declares(method: ButcherTableau) -> None:
    """Its order is that of b_hat, except for trbdf2's, which is the more accurate formula of its pair."""
    conditions, b_hat = order_conditions(method.name), embedded(method, method.b_error)
    order = {"trbdf2": 3}.get(method.name, method.controller_order - 1)
    assert all(conditions.violation(b_hat, n) <= allowed(method) for n in range(1, order + 1))
    assert conditions.violation(b_hat, order + 1) > CLEARLY_VIOLATED
    assert method.error_order == min(order, method.order)


@every_method
def test_the_stage_order_is_that_of_the_literature(method: ButcherTableau) -> None:
    """Stage order q: sum_j a_ij c_j^(n-1) = c_i^n / n in every row, and the same for b, for n up to q."""
    part, expected = implicit_part(method), EXPECTED[method.name].stage_order

    def residual(n: int) -> Fraction:
        got = [sum(a * c ** (n - 1) for a, c in zip(row, part.c, strict=True)) for row in (*part.matrix, part.b)]
        return max(abs(x - c**n / n) for x, c in zip(got, (*part.c, Fraction(1)), strict=True))

    assert all(residual(n) <= NEGLIGIBLE for n in range(1, expected + 1))
    assert residual(expected + 1) > CLEARLY_VIOLATED


# ---- stability ----


def rational(number: Fraction) -> Any:
    return sympy.Rational(number.numerator, number.denominator)


def positive_from(polynomial: Polynomial) -> bool:
    """Whether the polynomial is nonnegative for x >= 0, its negligible coefficients taken as zeros."""
    kept = [rational(a) if abs(a) > NEGLIGIBLE else 0 for a in polynomial]
    while kept and kept[0] == 0:  # a root at 0 is none to the right of it
        del kept[0]
    cut = sympy.Poly(kept[::-1] or [1], sympy.Symbol("x"))
    return cut.LC() > 0 and cut.count_roots(0, None) == 0


@every_method
def test_a_method_is_a_stable(method: ButcherTableau) -> None:
    """|R| <= 1 on the imaginary axis, and the poles, 1 / g_i if stages are not coupled, lie to the right of it."""
    part = implicit_part(method)
    if method.coupled:
        assert all(pole.real > 0 for pole in numpy.roots([float(a) for a in denominator(part)[::-1]]))
    else:
        assert all(g >= 0 for g in part.diagonal)
    assert positive_from(e_polynomial(part))
    assert degree(numerator(part)) <= degree(denominator(part))


@pytest.mark.parametrize("text", ["1 -1", "-1 2", "0 1 -3 1"])
def test_a_polynomial_that_is_negative_somewhere_is_found(text: str) -> None:
    assert not positive_from(row(text))
    assert positive_from(row("0 0 2 -2 1"))


def test_the_stability_function_of_an_explicit_method_is_its_taylor_polynomial() -> None:
    part = implicit_part(METHODS["rk4"])
    assert numerator(part) == row("1 1 1/2 1/6 1/24") and degree(denominator(part)) == 0
    assert not positive_from(e_polynomial(part))


@every_method
def test_l_stability_is_that_of_the_literature(method: ButcherTableau) -> None:
    part = implicit_part(method)
    assert (degree(numerator(part)) < degree(denominator(part))) == EXPECTED[method.name].L_stable


@adaptive_methods
def test_an_estimate_is_filtered_if_it_grows_without_bound(method: ButcherTableau) -> None:
    part = implicit_part(method)
    assert part.b_error is not None
    assert (degree(response(part, part.b_error)) > degree(denominator(part))) == method.filtered_error


def test_only_the_estimate_of_trbdf2_needs_the_filter() -> None:
    assert [m.name for m in IMPLICIT_METHODS.values() if m.filtered_error] == ["trbdf2"]


def filtered_at_infinity(part: Implicit, g: Fraction) -> Fraction:
    """Return the limit of the filtered estimate of trbdf2, response / (Q (1 - g z))."""
    assert part.b_error is not None
    above, below = response(part, part.b_error), denominator(part)
    return above[degree(above)] / (below[degree(below)] * -g)


def test_the_filter_bounds_the_estimate_of_trbdf2() -> None:
    part = implicit_part(IMPLICIT_METHODS["trbdf2"])
    assert degree(response(part, part.b_error or ())) == degree(denominator(part)) + 1
    assert abs(filtered_at_infinity(part, part.diagonal[-1])) < 2


# ---- derived properties ----


@every_method
def test_derived_properties_are_those_of_the_literature(method: ButcherTableau) -> None:
    facts = EXPECTED[method.name]
    assert (method.order, method.stages, method.adaptive) == (facts.order, facts.stages, facts.adaptive)
    assert method.stiffly_accurate == facts.stiffly_accurate
    assert method.implicit and not method.fsal


def test_an_explicit_method_is_neither_implicit_nor_stiffly_accurate() -> None:
    for method in (method for name, method in METHODS.items() if name not in IMPLICIT_METHODS):
        assert not (method.implicit or method.additive or method.stiffly_accurate or method.filtered_error)
        assert method.floats.diagonal == (0.0,) * len(method.extended_A)


@every_method
def test_the_diagonal_in_floats_is_extended_with_zeros(method: ButcherTableau) -> None:
    for tableau in (method, replace(KVAERNO3, interpolant=None)):
        own = tuple(float(g) for g in tableau.diagonal or ())
        assert tableau.floats.diagonal == (*own, *[0.0] * (len(tableau.extended_A) - len(own)))


@every_method
def test_rows_and_columns_of_terms_are_strictly_lower(method: ButcherTableau) -> None:
    assert all(j < i for i, terms in enumerate(method.terms.A) for j, _ in terms)
    assert all(j > i for i, terms in enumerate(method.terms.columns) for j, _ in terms)


def test_every_implicit_method_is_registered_under_its_name_and_cites_its_source() -> None:
    assert list(IMPLICIT_METHODS) == list(EXPECTED)
    for name, method in IMPLICIT_METHODS.items():
        assert name == method.name and re.search(r"\((19|20)\d\d\)|, (19|20)\d\d\)", method.source)


# ---- coefficients ----


def test_the_gamma_of_kvaerno3_is_the_root_that_makes_it_l_stable() -> None:
    g = KVAERNO3.diagonal[1] if KVAERNO3.diagonal else Fraction(0)
    assert float(g) == pytest.approx(0.43586652150845899942, abs=1e-16)
    assert abs(6 * g**3 - 18 * g**2 + 9 * g - 1) < NEGLIGIBLE


def test_kvaerno5_has_the_printed_coefficients() -> None:
    """Kvaerno (2004), method 5/4, to the digits printed there; a_ii = 0.26."""
    printed = """
        0.26
        0.13 0.84033320996790809
        0.22371961478320505 0.47675532319799699 -0.06470895363112615
        0.16648564323248321 0.10450018841591720 0.03631482272098715 -0.13090704451073998
        0.13855640231268224 0 -0.04245337201752043 0.02446657898003141 0.61943039072480676
        0.13659751177640291 0 -0.05496908796538376 -0.04118626728321046 0.62993304899016403 0.06962479448202728
    """
    rows = [row(line) for line in printed.strip().splitlines()]
    for ours, theirs in zip(IMPLICIT_METHODS["kvaerno5"].A[1:], rows, strict=True):
        assert all(abs(a - b) < Fraction(2, 10**17) for a, b in zip(ours, theirs, strict=True))


def test_kvaerno5_has_stage_order_3_from_its_third_stage_on() -> None:
    method = IMPLICIT_METHODS["kvaerno5"]
    rows = [(*a, g) for a, g in zip(method.A, method.extended_diagonal, strict=True)]
    moments = [sum(a * c**2 for a, c in zip(entries, method.c, strict=False)) for entries in rows]
    off = [abs(moment - c**3 / 3) for moment, c in zip(moments, method.c, strict=True)]
    assert off[1] > CLEARLY_VIOLATED and max(off[2:]) < NEGLIGIBLE


def test_the_steps_are_torchdiffeqs() -> None:
    """As in its source, whose released wheel lacks the implicit methods: rows with their diagonals, then b."""
    root2 = 2.0**0.5
    g, w = 1.0 - root2 / 2.0, root2 / 4.0
    theirs = {
        "implicit_euler": ([[1.0]], [1.0]),
        "implicit_midpoint": ([[0.5]], [1.0]),
        "crank_nicolson": ([[0.0], [0.5, 0.5]], [0.5, 0.5]),
        "sdirk2": ([[g], [1.0 - g, g]], [1.0 - g, g]),
        "trbdf2": ([[0.0], [g, g], [w, w, g]], [w, w, g]),
    }
    for name, (A, b) in theirs.items():
        floats = IMPLICIT_METHODS[name].floats
        rows = [[*a, g_i] for a, g_i in zip(floats.A, floats.diagonal, strict=True)]
        for ours, row_of_theirs in zip([*rows, list(floats.b)], [*A, b], strict=True):
            assert ours == pytest.approx(row_of_theirs, abs=1e-15)


def test_a_root_is_found_to_60_digits() -> None:
    assert abs(root(row("-2 0 1"), near=Fraction(3, 2)) ** 2 - 2) < Fraction(1, 10**59)


# ---- dense output ----

KVAERNO3, KVAERNO5 = IMPLICIT_METHODS["kvaerno3"], IMPLICIT_METHODS["kvaerno5"]


def test_the_default_interpolant_adds_f_at_the_end_as_an_explicit_row() -> None:
    method = replace(KVAERNO3, interpolant=None)
    s = method.stages
    assert method.extended_A[s] == method.b and method.extended_c[s] == 1 and method.extended_diagonal[s] == 0
    conditions = OrderConditions(method)
    assert all(conditions.dense_violation(n) <= NEGLIGIBLE for n in (1, 2, 3))


@pytest.mark.parametrize("name", ["trbdf2", "kvaerno3", "kvaerno5"])
def test_dense_output_has_the_slopes_of_the_first_and_the_last_stage(name: str) -> None:
    method = IMPLICIT_METHODS[name]
    first = [float(weights[0]) for weights in method.interpolant.weights]
    last = [float(sum(p * w for p, w in enumerate(weights, start=1))) for weights in method.interpolant.weights]
    assert first == [1.0, *[0.0] * (method.stages - 1)] and last == first[::-1]
    assert method.interpolant.A == ()


def test_the_correction_of_the_dense_output_of_kvaerno5_has_the_least_weights() -> None:
    """Of the multiples of sigma^2 (1 - sigma)^2 that give order 4, which is five conditions on seven weights."""
    rows = [(*a, g) for a, g in zip(KVAERNO5.A, KVAERNO5.extended_diagonal, strict=True)]
    nodes = KVAERNO5.c
    moments = [sum((a * c**2 for a, c in zip(entries, nodes, strict=False)), Fraction(0)) for entries in rows]
    conditions = sympy.Matrix([*([rational(c**n) for c in nodes] for n in range(4)), [*map(rational, moments)]])
    wanted = sympy.Matrix(["0", "0", "0", "1/4", "1/12"])
    least = conditions.T * (conditions * conditions.T).LUsolve(wanted)
    ours = [rational(weights[3]) for weights in KVAERNO5.interpolant.weights]
    assert all(abs(a - b) < rational(NEGLIGIBLE) for a, b in zip(ours, least, strict=True))


def test_without_its_own_dense_output_kvaerno5_would_land_on_outputs() -> None:
    assert KVAERNO5.interpolant.order == 4 and not replace(KVAERNO5, interpolant=None).interpolates


# ---- validation ----


def trapezoid(**changes: Any) -> ButcherTableau:
    """Return the trapezoidal rule with these changes."""
    coefficients = {"A": ((), row("1/2")), "b": row("1/2 1/2"), "c": row("0 1"), "diagonal": row("0 1/2")}
    return ButcherTableau(**{"name": "mine", "order": 2, "source": "test", **coefficients, **changes})


BAD = {
    "a short diagonal": ({"diagonal": row("1/2")}, "diagonal .* must have 2 entries, got 1"),
    "a diagonal in floats": ({"diagonal": (0.0, 0.5)}, "diagonal .* holds the float 0.0; give a fractions.Fraction"),
    "a diagonal of zeros": ({"diagonal": row("0 0")}, "diagonal holds only zeros; leave it out of an explicit method"),
    "a diagonal that the nodes do not include": ({"diagonal": row("0 1/4")}, "row 1 of A must sum to 1, got 3/4"),
    "no diagonal": ({"diagonal": None}, "row 1 of A must sum to 1, got 1/2"),
    "an implicit first row without dense output": (
        {"A": ((), row("0")), "c": row("1/2 1"), "diagonal": row("1/2 1")},
        "row 0 is implicit, so the cubic Hermite interpolant has no f at the start; give another",
    ),
    "parts of an interpolant for a method without parts": (
        {
            "interpolant": Interpolant(
                order=2,
                weights=(row("1 -1/2"), row("0 1/2"), row("0 0")),
                A=(row("1/2 1/2"),),
                c=row("1"),
                parts=(1,),
            )
        },
        r"must give a part to each row that it adds to an additive method, got \(1,\)",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_implicit_tableau_raises_and_the_message_names_method_and_row(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidTableau, match=f"^mine: .*{message}"):
        trapezoid(**changes)


def test_the_tableau_that_the_bad_ones_modify_is_valid() -> None:
    assert trapezoid().stiffly_accurate
