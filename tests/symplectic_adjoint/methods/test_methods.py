"""The explicit methods against the theory: order conditions over all rooted trees, in rational arithmetic."""

import re
from fractions import Fraction

import pytest

from symplectic_adjoint.methods.registry import EXPLICIT_METHODS, METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from tests.symplectic_adjoint.methods.trees import embedded, order_conditions, size, trees

# Exact methods meet the conditions exactly. The others meet them to their number of digits (measured: 8e-31, 3e-26,
# 1e-17): tsit5 has 34 digits and dop853 about 29, with coefficients up to 50 and dense weights up to 550; dopri8's
# rational approximations are good to 18 digits.
ALLOWED = {"tsit5": Fraction(1, 10**30), "dop853": Fraction(1, 10**25), "dopri8": Fraction(1, 10**16)}

# Far above rounding error, and below the smallest violation of the first order that a method misses (dopri8's, 8e-6).
CLEARLY_VIOLATED = Fraction(1, 10**6)

# Effective stages; FSAL or not; whether dense output is as accurate as the step; whether there is an error estimate.
EXPECTED = {
    "euler": (1, False, True, False),
    "midpoint": (2, False, True, False),
    "heun2": (2, False, True, False),
    "adaptive_heun": (2, False, True, True),
    "fehlberg2": (3, False, True, True),
    "heun3": (3, False, True, False),
    "bosh3": (3, True, True, True),
    "rk4": (4, False, True, False),
    "rk38": (4, False, True, False),
    "dopri5": (6, True, True, True),
    "tsit5": (6, True, True, True),
    "dopri8": (13, False, False, True),
    "dop853": (12, False, True, True),
}

EXPLICIT = {name: method for name, method in EXPLICIT_METHODS.items() if not method.implicit}

every_method = pytest.mark.parametrize("method", EXPLICIT.values(), ids=EXPLICIT.keys())
methods_with_one_estimate = pytest.mark.parametrize(
    "method", [m for m in EXPLICIT.values() if m.adaptive and m.name != "dop853"], ids=lambda m: m.name
)


def test_the_number_of_rooted_trees_is_cayleys() -> None:
    assert [len(trees(nodes)) for nodes in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    assert all(size(tree) == 6 for tree in trees(6)) and len(set(trees(6))) == 20


@every_method
def test_a_method_has_the_order_it_declares(method: ButcherTableau) -> None:
    conditions, allowed = order_conditions(method.name), ALLOWED.get(method.name, 0)
    assert all(conditions.violation(method.b, nodes) <= allowed for nodes in range(1, method.order + 1))


@every_method
def test_a_method_does_not_have_a_higher_order_than_it_declares(method: ButcherTableau) -> None:
    assert order_conditions(method.name).violation(method.b, method.order + 1) > CLEARLY_VIOLATED


@every_method
def test_dense_output_has_the_order_it_declares(method: ButcherTableau) -> None:
    conditions, allowed = order_conditions(method.name), ALLOWED.get(method.name, 0)
    assert all(conditions.dense_violation(nodes) <= allowed for nodes in range(1, method.interpolant.order + 1))
    assert conditions.dense_violation(method.interpolant.order + 1) > CLEARLY_VIOLATED


@methods_with_one_estimate
def test_the_embedded_solution_has_the_order_it_declares(method: ButcherTableau) -> None:
    b_hat, error_order = embedded(method, method.b_error), method.error_order
    conditions, allowed = order_conditions(method.name), ALLOWED.get(method.name, 0)
    assert error_order is not None
    assert all(conditions.violation(b_hat, n) <= allowed for n in range(1, error_order + 1))
    assert conditions.violation(b_hat, error_order + 1) > CLEARLY_VIOLATED


def test_the_two_estimates_of_dop853_combine_to_the_order_that_it_declares() -> None:
    method, conditions, orders = METHODS["dop853"], order_conditions("dop853"), []
    for error_weights in (method.b_error, method.b_error_low):
        b_hat = embedded(method, error_weights)
        violated = (n for n in range(1, 9) if conditions.violation(b_hat, n) > CLEARLY_VIOLATED)
        first_violated = next(violated)
        assert all(conditions.violation(b_hat, n) <= ALLOWED["dop853"] for n in range(1, first_violated))
        orders.append(first_violated - 1)
    assert orders == [5, 3]
    # err_5^2 / err_3 falls as h^(2 (5 + 1) - (3 + 1)), which is h^(error_order + 1).
    assert method.error_order == 2 * orders[0] - orders[1]


@every_method
def test_dense_output_starts_with_the_slope_at_the_start(method: ButcherTableau) -> None:
    slopes = [row[0] for row in method.interpolant.weights]
    assert slopes == [1, *[0] * (len(slopes) - 1)]


@pytest.mark.parametrize("name", ["bosh3", "heun3", "fehlberg2", "dopri5", "tsit5", "dopri8", "dop853"])
def test_dense_output_that_uses_f_at_the_end_ends_with_that_slope(name: str) -> None:
    method = METHODS[name]
    slopes = [sum(p * w for p, w in enumerate(row, start=1)) for row in method.interpolant.weights]
    expected = [int(i == method.stages) for i in range(len(slopes))]
    # tsit5's weights reach 90 with 34 digits, dop853's 550 with 28; the other slopes are exact by construction.
    assert all(abs(slope - e) < Fraction(1, 10**24) for slope, e in zip(slopes, expected, strict=True))


@pytest.mark.parametrize("name", EXPECTED)
def test_stages_fsal_interpolates_and_adaptive_are_derived_as_in_the_literature(name: str) -> None:
    method = METHODS[name]
    assert (method.stages, method.fsal, method.interpolates, method.adaptive) == EXPECTED[name]


def test_only_methods_published_with_rounded_coefficients_are_inexact() -> None:
    assert {name for name, method in EXPLICIT.items() if not method.exact} == set(ALLOWED)


@every_method
def test_a_method_cites_its_source(method: ButcherTableau) -> None:
    assert re.search(r"\b(17|18|19|20)\d\d\b", method.source), "the year of a publication"
