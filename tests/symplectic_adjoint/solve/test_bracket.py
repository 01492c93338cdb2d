"""The bracket of a zero: its ends, its guesses by number, and how many of them a zero takes."""

import math

import pytest

from symplectic_adjoint.solve.bracket import Bracket

EPS = 2.0**-52


def bracket(low, high, f, **settings):
    return Bracket(low, high, f(low), f(high), EPS, **settings)


class TestEnds:
    @pytest.mark.parametrize(("low", "high"), [(0.0, 8.0), (8.0, 0.0)])
    def test_low_has_a_positive_value_and_high_has_none(self, low, high):
        found = Bracket(low, high, 3.0, -1.0, EPS)
        assert (found.low, found.high, found.drop, found.fall) == (low, high, 4.0, 4.0)
        found.update(4.0, 2.0)
        assert (found.low, found.high, found.drop, found.fall) == (4.0, high, 3.0, 4.0)
        found.update(5.0, -0.5)
        assert (found.low, found.high, found.drop) == (4.0, 5.0, 2.5)
        found.update(4.5, 0.0)
        assert (found.low, found.high) == (4.0, 4.5)

    def test_infinite_values_of_both_signs_fall_infinitely(self):
        assert Bracket(0.0, 1.0, math.inf, -math.inf, EPS).drop == math.inf
        assert Bracket(0.0, 1.0, math.inf, math.inf, EPS).drop == math.inf


class TestGuesses:
    def test_the_first_is_that_of_the_secant(self):
        # From (8, -1) towards (0, 3): a quarter of the way.
        assert Bracket(0.0, 8.0, 3.0, -1.0, EPS).guess() == 6.0

    def test_the_next_is_that_of_inverse_quadratic_interpolation(self):
        # Values of 4 - x - x^2/8 at 2, 4 and 0: x as a quadratic in the value, by Lagrange, at zero.
        found = Bracket(0.0, 4.0, 4.0, -2.0, EPS)
        found.update(2.0, 1.5)
        points = [(2.0, 1.5), (4.0, -2.0), (0.0, 4.0)]
        expected = sum(x * math.prod(-g / (f - g) for _, g in points if g != f) for x, f in points)
        # Some ten operations round.
        assert found.guess() == pytest.approx(expected, rel=1e-14, abs=0)

    @pytest.mark.parametrize(
        ("x", "value"),
        [(1.0, 4.0), (1.0, math.inf), (2.9, 3.999), (0.1, 0.001)],
        ids=["flat", "infinite", "steep at the end", "steep at the start"],
    )
    def test_points_that_are_on_no_such_curve_are_bisected(self, x, value):
        found = Bracket(0.0, 3.0, 4.0, -5.0, EPS)
        found.update(x, value)
        assert found.guess() == pytest.approx((x + 3.0) / 2, rel=1e-15)

    def test_an_infinite_end_is_bisected(self):
        assert Bracket(0.0, 8.0, 3.0, -math.inf, EPS).guess() == 4.0

    def test_after_three_that_did_not_halve_it_a_bisection_follows(self):
        found = Bracket(0.0, 8.0, 7.5, -0.5, EPS)
        for x in (0.5, 0.75):
            found.update(x, 7.5 - x)
            assert found.guess() == 7.5  # the values lie on a line
        found.update(1.0, 6.5)
        assert found.guess() == 4.5
        found.update(4.5, 3.0)
        assert found.guess() == 7.5

    def test_a_guess_is_within_the_bracket_by_what_times_resolve(self):
        # The secant's guess would be the end itself.
        found = Bracket(1.0, 2.0, 1e30, -1e-30, EPS)
        assert 1.0 < found.guess() < 2.0 and 2.0 - found.guess() <= 8 * EPS


class TestConvergence:
    @pytest.mark.parametrize(
        ("low", "high", "settings", "converged"),
        [
            # The span is resolved to 4 eps of its own size, times to eps of theirs, and two of them to two spacings.
            (1.0, 1.0 + 2 * EPS, {}, True),
            (1.0, 1.0 + 3 * EPS, {}, False),
            (1.0, 1.25, {"grain": 0.125}, True),
            (1.0, 1.26, {"grain": 0.125}, False),
        ],
    )
    def test_ends_that_differ_by_rounding_have_converged(self, low, high, settings, converged):
        assert Bracket(low, high, 1.0, -1.0, EPS, **settings).converged is converged

    def test_states_resolve_the_span(self):
        found = Bracket(0.0, 1.0, 1.0, -1.0, 2.0**-10)
        found.update(1 - 2.0**-10, 0.5)
        assert found.converged  # eps times the time
        found = Bracket(0.0, 1.0, 1.0, -1.0, 2.0**-10)
        found.update(1 - 2.0**-9, 0.5)
        assert not found.converged

    def test_near_zero_twenty_bits_more_than_the_span_are_resolved(self):
        span = 2.0**-10
        for width, converged in ((2.0**-30, True), (2.0**-29, False)):
            found = Bracket(0.0, 1.0, 1.0, -1.0, span)
            found.update(width, -0.5)
            assert found.converged is converged

    @pytest.mark.parametrize(
        ("f", "zero", "most"),
        # A smooth zero takes some ten; a jump one a bit, and there are 54 bits.
        [
            (lambda x: 2.0 - x, 2.0, 2),
            (lambda x: math.cos(x / 2), math.pi, 8),
            (lambda x: 8.0 - x**3, 2.0, 11),
            (lambda x: 1.0 if x < 0.7 else -1.0, 0.7, 54),
            (lambda x: max(0.0, 0.7 - x), 0.7, 64),
            (lambda x: math.exp(-20 * x) - math.exp(-20 * 0.7), 0.7, 15),
        ],
        ids=["line", "cosine", "cubic", "jump", "zero from then on", "exponential"],
    )
    def test_a_zero_is_found_to_rounding_in_few_guesses(self, f, zero, most):
        found, guesses = bracket(0.0, 4.0, f), 0
        while not found.converged:
            x = found.guess()
            assert min(found.low, found.high) < x < max(found.low, found.high)
            found.update(x, f(x))
            guesses += 1
        assert abs(found.high - zero) <= 8 * EPS
        assert guesses <= most
