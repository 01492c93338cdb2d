"""ButcherTableau and Interpolant: validation, derived properties and dense output."""

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import pytest
import torch

from symplectic_adjoint.errors import InvalidTableau
from symplectic_adjoint.methods.coefficients import Row
from symplectic_adjoint.methods.interpolant import Interpolant, hermite, linear
from symplectic_adjoint.methods.registry import METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau

HALF = Fraction(1, 2)
EULER, HEUN3, BOSH3, RK4, DOPRI8, DOP853 = (
    METHODS[name] for name in ("euler", "heun3", "bosh3", "rk4", "dopri8", "dop853")
)
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def row(text: str) -> Row:
    return tuple(Fraction(number) for number in text.split())


def heun2(**changes: Any) -> ButcherTableau:
    """Return the explicit trapezoidal rule with an Euler error estimate and these changes."""
    coefficients = {"A": ((), row("1")), "b": row("1/2 1/2"), "c": row("0 1")}
    estimate = {"b_error": row("-1/2 1/2"), "error_order": 1}
    return ButcherTableau(**{"name": "mine", "order": 2, "source": "test", **coefficients, **estimate, **changes})


def dense(*weights: str, **added: Any) -> Interpolant:
    return Interpolant(order=2, weights=tuple(row(text) for text in weights), **added)


# ---- validation ----

BAD = {
    "a square row": ({"A": (row("0"), row("1"))}, "row 0 of A .* must have 0 entries, got 1"),
    "a short row": ({"A": ((), ())}, "row 1 of A .* must have 1 entries, got 0"),
    "a row that does not sum to c": ({"A": ((), row("3/4"))}, "row 1 of A must sum to 1, got 3/4"),
    "a first node that is not 0": ({"c": row("1/3 1")}, "row 0 of A must sum to 1/3, got 0"),
    "too few nodes": ({"c": row("0")}, "c .* must have 2 entries, got 1"),
    "too many weights": ({"b": row("1/2 1/4 1/4")}, "b .* must have 2 entries, got 3"),
    "weights that do not sum to 1": ({"b": row("1/2 1/3")}, "b must sum to 1, got 5/6"),
    "no weight at all": ({"b": row("0 0")}, "b must sum to 1, got 0"),
    "a float": ({"b": (0.5, HALF)}, "b .* holds the float 0.5; give a fractions.Fraction"),
    "a short estimate": ({"b_error": row("0")}, "b_error .* must have 2 entries, got 1"),
    "an estimate that does not sum to 0": ({"b_error": row("1/2 1/2")}, "b_error must sum to 0, got 1"),
    "a second estimate that does not sum to 0": ({"b_error_low": row("1 0")}, "b_error_low must sum to 0, got 1"),
    "an estimate without its order": ({"error_order": None}, "b_error and error_order belong together"),
    "a second estimate alone": (
        {"b_error": None, "error_order": None, "b_error_low": row("1/2 -1/2")},
        "b_error_low is combined with b_error, which is missing",
    ),
    "a useless last row": (
        {"b": row("1 0"), "A": ((), row("1/2")), "c": row("0 1/2")},
        r"b does not use row 1, .* got c = 1/2 and a = \(1/2\)",
    ),
    "a missing dense row": ({"interpolant": dense("1 -1/2")}, "must weigh all 2 extended rows, got 1"),
    "ragged dense weights": (
        {"interpolant": dense("1 -1/2", "1/2")},
        "row 1 of the interpolant's weights .* must have 2 entries, got 1",
    ),
    "dense output that ends elsewhere": (
        {"interpolant": dense("1 0", "0 0")},
        r"row 0 of the interpolant's weights \(b at sigma = 1\) must sum to 1/2, got 1",
    ),
    "dense output that is not linear in time": (
        {"interpolant": dense("0 1/2", "0 1/2")},
        r"the interpolant's weights of sigma\^1 must sum to 1, got 0",
    ),
    "a missing row of dense weights for an added row": (
        {"interpolant": dense("1 -1/2", "0 1/2", "0 0", A=(row("1/2 1/2"), row("0 0 1")), c=row("1 1/2"))},
        "must weigh all 4 extended rows, got 3",
    ),
    "an added row of the wrong length": (
        {"interpolant": dense("1 -1/2", "0 1/2", "0 0", A=(row("1"),), c=row("1"))},
        "row 2 of the extended A .* must have 2 entries, got 1",
    ),
    "an added row without its node": (
        {"interpolant": dense("1 -1/2", "0 1/2", "0 0", A=(row("1/2 1/2"),))},
        "the interpolant's c .* must have 1 entries, got 0",
    ),
    "a first added row that is not the end": (
        {"interpolant": dense("1 -1/2", "0 1/2", "0 0", A=(row("1 0"),), c=row("1"))},
        r"b does not use row 2, .* got c = 1 and a = \(1, 0\)",
    ),
    "a later added row that does not sum to c": (
        {"interpolant": dense("1 -1/2", "0 1/2", "0 0", "0 0", A=(row("1/2 1/2"), row("0 0 1")), c=row("1 1/2"))},
        "row 3 of the extended A must sum to 1/2, got 1",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_tableau_raises_and_the_message_names_method_and_row(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTableau, match=f"^mine: .*{message}"):
        heun2(**changes)


def test_the_tableau_that_the_bad_ones_modify_is_valid() -> None:
    assert heun2().stages == 2 and issubclass(InvalidTableau, ValueError)


def test_the_sums_of_an_exact_method_must_be_exact() -> None:
    with pytest.raises(InvalidTableau, match=r"exact=True allows 0\)"):
        heun2(b=(HALF, HALF + Fraction(1, 10**40)))


def test_the_sums_of_a_rounded_method_may_be_off_by_a_few_roundings_of_a_double() -> None:
    heun2(b=(HALF, HALF + Fraction(9, 10**16)), exact=False)
    with pytest.raises(InvalidTableau, match=r"off by 1.1e-15, exact=False allows 1e-15\)"):
        heun2(b=(HALF, HALF + Fraction(11, 10**16)), exact=False)


def test_a_short_fraction_is_shown_as_it_is_and_a_long_one_as_a_decimal() -> None:
    with pytest.raises(InvalidTableau, match="must sum to 1, got 1/1234567890;"):
        heun2(A=((), row("1/1234567890")))
    with pytest.raises(InvalidTableau, match=r"must sum to 1, got 8.1000000730539\d*e-11;"):
        heun2(A=((), row("1/12345678901")))


# ---- derived properties ----


@every_method
def test_a_tableau_is_frozen(method: ButcherTableau) -> None:
    with pytest.raises(FrozenInstanceError):
        method.order = 9  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FrozenInstanceError):
        method.interpolant.order = 9  # pyright: ignore[reportAttributeAccessIssue]


@every_method
def test_a_tableau_equals_its_copies(method: ButcherTableau) -> None:
    for copy in (replace(method), pickle.loads(pickle.dumps(method))):
        assert copy == method
        assert hash(copy) == hash(method)


@every_method
def test_the_row_after_the_stages_is_f_at_the_end_of_the_step(method: ButcherTableau) -> None:
    s = method.stages
    assert all(weight == 0 for weight in method.b[s:])
    if len(method.extended_A) > s:
        assert method.extended_A[s] == method.b[:s]
        assert method.extended_c[s] == 1


def test_a_last_row_that_is_f_at_the_end_makes_a_method_fsal() -> None:
    assert BOSH3.fsal and BOSH3.stages == 3
    A, b, c = BOSH3.A[:3], BOSH3.b[:3], BOSH3.c[:3]
    without = replace(BOSH3, A=A, b=b, c=c, b_error=None, error_order=None, interpolant=hermite(b, A, c))
    assert not without.fsal and without.stages == 3


def test_the_interpolant_adds_f_at_the_end_only_if_the_method_lacks_it() -> None:
    assert BOSH3.interpolant.A == ()
    (end,) = HEUN3.interpolant.A
    assert end == HEUN3.b and HEUN3.interpolant.c == (1,)
    assert RK4.interpolant.A == ()  # its four stages are enough
    assert len(DOP853.interpolant.A) == 4


def test_a_method_interpolates_if_dense_output_is_at_most_one_order_lower() -> None:
    assert heun2(order=2).interpolates
    assert RK4.interpolates and RK4.interpolant.order == RK4.order - 1
    assert not DOPRI8.interpolates and DOPRI8.interpolant.order == 3
    assert not replace(METHODS["dopri5"], interpolant=None).interpolates


def test_the_order_of_the_cubic_is_at_most_that_of_the_method() -> None:
    assert heun2().interpolant.order == 2


def test_the_controller_order_is_one_above_that_of_the_estimate() -> None:
    assert BOSH3.controller_order == 3 and DOP853.controller_order == 8


def test_a_method_without_an_estimate_has_no_controller_order() -> None:
    with pytest.raises(ValueError, match="rk4 has no error estimate"):
        _ = RK4.controller_order


@every_method
def test_the_floats_are_the_extended_rows_rounded_once(method: ButcherTableau) -> None:
    floats, rows = method.floats, len(method.A) + len(method.interpolant.A)
    assert [len(entries) for entries in floats.A] == list(range(rows)) and len(floats.c) == rows
    assert floats.b == tuple(float(weight) for weight in method.b[: method.stages])
    assert (floats.b_error is not None) == method.adaptive
    every_row = [*floats.A, floats.c, floats.b, floats.b_error or (), floats.b_error_low or ()]
    assert {type(entry) for entries in every_row for entry in entries} == {float}
    assert method.floats is floats


# ---- dense output ----


@every_method
@pytest.mark.parametrize("sigma", [0.0, 0.125, 0.5, 0.75, 1.0])
def test_dense_weights_and_slopes_are_the_values_of_the_polynomials(method: ButcherTableau, sigma: float) -> None:
    dense, x = method.interpolant, Fraction(sigma)
    # Rounding error of doubles: dop853's coefficients reach 550 (2500 for slopes) and are damped only by powers of
    # 1/2 in the middle of the step, where the error is largest (measured: 5e-14, and 5e-13 for slopes).
    for weight, slope, powers in zip(dense.weights_at(sigma), dense.slopes_at(sigma), dense.weights, strict=True):
        exact = sum(w * x**p for p, w in enumerate(powers, start=1))
        exact_slope = sum(p * w * x ** (p - 1) for p, w in enumerate(powers, start=1))
        assert math.isclose(weight, exact, rel_tol=1e-15, abs_tol=1e-13)
        assert math.isclose(slope, exact_slope, rel_tol=1e-15, abs_tol=1e-12)


@every_method
def test_dense_output_at_the_end_is_the_step_itself(method: ButcherTableau) -> None:
    weights, s = method.interpolant.weights_at(1.0), method.stages
    assert weights[:s] == method.floats.b  # equal, not merely close
    assert not any(weights[s:])


@every_method
def test_dense_output_at_the_start_is_the_state_itself(method: ButcherTableau) -> None:
    assert not any(method.interpolant.weights_at(0.0))


def test_dense_weights_accept_sigma_as_a_tensor_and_keep_its_graph() -> None:
    sigma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for method in (EULER, BOSH3, DOP853):
        weights, slopes = method.interpolant.weights_at(sigma), method.interpolant.slopes_at(sigma)
        assert all(isinstance(entry, torch.Tensor) for entry in (*weights, *slopes))
        gradients = [torch.autograd.grad(weight, sigma)[0] for weight in weights]
        # The slopes' own formula and the derivative of the weights' round differently.
        torch.testing.assert_close(torch.stack(gradients), torch.stack(slopes), rtol=1e-12, atol=1e-12)


def test_the_cubic_takes_the_values_and_slopes_of_both_ends() -> None:
    cubic = hermite(RK4.b, RK4.A, RK4.c)
    (end,) = cubic.A
    assert cubic.order == 3 and end == RK4.b and cubic.c == (1,)
    at_end, first_slopes, last_slopes = cubic.weights_at(1.0), cubic.slopes_at(0.0), cubic.slopes_at(1.0)
    assert at_end == (*RK4.floats.b, 0.0)
    assert first_slopes == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert last_slopes == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_dense_output_can_be_replaced_by_the_cubic_or_the_line() -> None:
    for method in (method for method in METHODS.values() if not method.implicit):
        cubic = replace(method, interpolant=hermite(method.b, method.A, method.c, order=min(3, method.order)))
        assert cubic.interpolant.rows == method.stages + 1
        line = replace(method, interpolant=linear(method.b))
        assert line.interpolant.rows == method.stages
        assert line.interpolant.weights_at(0.25)[: method.stages] == tuple(0.25 * b for b in method.floats.b)


def test_an_interpolant_counts_the_rows_that_it_needs() -> None:
    assert EULER.interpolant.rows == 1 and RK4.interpolant.rows == 4
    assert BOSH3.interpolant.rows == 4 and DOP853.interpolant.rows == 16
