"""The stability of explicit methods on the negative real axis, and the stages that show it."""

import cmath
import math
from fractions import Fraction

import pytest

from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from symplectic_adjoint.methods.stability import Stability, real_bound, stability_polynomial

EXPLICIT = {name: tableau for name, tableau in EXPLICIT_METHODS.items() if name != "leapfrog"}
every_method = pytest.mark.parametrize("name", EXPLICIT)


def stages_of(tableau, z):
    """Return k_1 .. k_rows / lambda and y+ of one step of y' = lambda y from y = 1, where z = h lambda."""
    ks = []
    for row in tableau.floats.A[: len(tableau.A)]:
        ks.append(1.0 + z * sum(a * k for a, k in zip(row, ks, strict=True)))
    return ks, 1.0 + z * sum(b * k for b, k in zip(tableau.floats.b, ks, strict=False))


@every_method
@pytest.mark.parametrize("z", [-2.5, 0.3, 1j])
def test_the_polynomial_is_what_a_step_multiplies_the_state_by(name, z):
    tableau = EXPLICIT[name]
    polynomial = stability_polynomial(tableau.A, tableau.b)
    assert cmath.isclose(sum(float(c) * z**n for n, c in enumerate(polynomial)), stages_of(tableau, z)[1], rel_tol=1e-9)


@every_method
def test_the_polynomial_begins_like_the_exponential(name):
    tableau = EXPLICIT[name]
    for n, c in enumerate(stability_polynomial(tableau.A, tableau.b)[: tableau.order + 1]):
        assert float(c) == pytest.approx(1.0 / math.factorial(n), rel=1e-13)


@pytest.mark.parametrize(
    ("name", "expected"),
    # Hairer and Wanner II, table IV.2.1 (p = s = 1 .. 4), and section IV.2: 3.3 for dopri5.
    [("euler", 2.0), ("midpoint", 2.0), ("heun3", 2.51), ("rk4", 2.785), ("dopri5", 3.307)],
)
def test_the_bound_is_the_published_one(name, expected):
    assert EXPLICIT[name].stability.bound == pytest.approx(expected, abs=5e-3)


@every_method
def test_a_step_grows_beyond_the_bound_and_not_before(name):
    tableau, bound = EXPLICIT[name], EXPLICIT[name].stability.bound
    assert abs(stages_of(tableau, -bound * (1 + 1e-6))[1]) > 1.0
    assert all(abs(stages_of(tableau, -bound * x / 100)[1]) <= 1.0 + 1e-12 for x in range(101))


@every_method
@pytest.mark.parametrize("z", [-2.0, -0.5, 0.7j])
def test_the_quotient_of_the_sums_is_h_rho_of_a_linear_problem(name, z):
    tableau = EXPLICIT[name]
    ks, _ = stages_of(tableau, z)
    slopes, states = (sum(w * ks[j] for j, w in terms) for terms in tableau.stability[1:])
    if tableau.stages > 1:
        assert cmath.isclose(slopes, z * states, rel_tol=1e-9)
    else:
        assert tableau.stability.states == ()


@pytest.mark.parametrize("name", [name for name, tableau in EXPLICIT.items() if tableau.stages > 1])
def test_the_weights_cancel_what_is_linear_in_time(name):
    """With two stages only what is constant."""
    tableau = EXPLICIT[name]
    for power in range(2 if tableau.stages > 2 else 1):
        terms = [w * tableau.floats.c[i] ** power for i, w in tableau.stability.slopes]
        assert sum(terms) == pytest.approx(0.0, abs=1e-12 * max(1.0, *map(abs, terms)))


def test_stages_at_the_same_time_are_compared_where_there_are_some():
    pairs = {name: [i for i, _ in EXPLICIT[name].stability.slopes] for name in ("dopri5", "tsit5", "dopri8")}
    assert pairs == {"dopri5": [5, 6], "tsit5": [5, 6], "dopri8": [11, 12]}


def test_a_repeated_node_elsewhere_is_taken_once():
    half, third = Fraction(1, 2), Fraction(1, 3)
    A = ((), (half,), (Fraction(0), half), (third, third, third))
    found = Stability.of(A, (third, third, third, Fraction(0)), (Fraction(0), half, half, Fraction(1)))
    assert [i for i, _ in found.slopes] == [0, 2, 3]


def test_a_bound_beyond_a_local_extremum_is_found():
    """The Chebyshev polynomial T_3(1 + z/9), stable up to 2 s^2 = 18 (Hairer and Wanner II, eq. IV.2.20)."""
    shifted = [Fraction(1), Fraction(1), Fraction(4, 27), Fraction(4, 729)]
    assert real_bound(shifted) == pytest.approx(18.0, rel=1e-9)
