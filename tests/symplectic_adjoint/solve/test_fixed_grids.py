"""Fixed grids by hand: where steps must end, how many there are, and what is marked at their ends."""

import itertools
import math
from types import SimpleNamespace

import pytest

from symplectic_adjoint.errors import StepSizeUnderflow, TooManySteps
from symplectic_adjoint.solve.fixed_grid import fixed_plans, pins_of
from symplectic_adjoint.solve.grid import CONSTANT, FREE
from symplectic_adjoint.solve.step_sequences import even_count, even_steps, pins_on, unbounded_steps

TIMES = (0.0, 1.0, 2.0, 3.0)
ULP = math.ulp(1.0)


def options(**given):
    unset = {"stops": (), "jumps": (), "land": False, "step_size": None, "points": None, "perturb": False}
    return SimpleNamespace(**{**unset, "max_num_steps": 100, **given})


def backwards(times):
    return tuple(-time for time in times)


class TestPins:
    @pytest.mark.parametrize(
        ("given", "pins"),
        [
            ({}, [(3.0, 3)]),
            ({"stops": (1.0, 1.5)}, [(1.0, 1), (1.5, CONSTANT), (3.0, 3)]),
            ({"stops": (0.0, 3.0, 4.0, -1.0)}, [(3.0, 3)]),
            ({"stops": (1.0,), "jumps": (1.0,)}, [(1.0, CONSTANT), (3.0, 3)]),
            ({"land": True}, [(1.0, 1), (2.0, 2), (3.0, 3)]),
            ({"land": True, "stops": (2.0,), "jumps": (2.0,)}, [(1.0, 1), (2.0, CONSTANT), (3.0, 3)]),
        ],
    )
    def test_they_are_stops_and_outputs_that_are_landed_on_and_the_end(self, given, pins):
        assert pins_of(options(**given), TIMES) == pins
        mirrored = {name: value if value is True else backwards(value) for name, value in given.items()}
        assert pins_of(options(**mirrored), backwards(TIMES)) == [(-time, j) for time, j in pins]

    def test_an_end_at_infinity_is_free_and_one_time_has_none(self):
        assert pins_of(options(), (0.0, 1.0, math.inf)) == [(math.inf, FREE)]
        assert pins_of(options(stops=(0.0,)), (0.0,)) == []


class TestPlans:
    def plans(self, times=TIMES, **given):
        return [(p.t, p.t_end, p.pinned_to) for p in fixed_plans(options(**given), times)]

    def test_the_grid_is_t_itself(self):
        assert self.plans() == [(0.0, 1.0, 1), (1.0, 2.0, 2), (2.0, 3.0, 3)]
        assert self.plans(backwards(TIMES)) == [(0.0, -1.0, 1), (-1.0, -2.0, 2), (-2.0, -3.0, 3)]

    def test_or_points_within_both_ends(self):
        points = (-1.0, 0.5, 2.0, 3.0, 3.5)
        assert self.plans(points=points) == [(0.0, 0.5, CONSTANT), (0.5, 2.0, 2), (2.0, 3.0, 3)]

    def test_stops_are_points_too_and_one_at_a_jump_is_a_constant(self):
        assert self.plans(stops=(0.5, 1.0), jumps=(1.0,))[:2] == [(0.0, 0.5, CONSTANT), (0.5, 1.0, CONSTANT)]

    def test_steps_of_one_size_begin_anew_at_each_pin(self):
        found = self.plans((0.0, 3.0), step_size=1.0, stops=(1.5,))
        assert found == [(0.0, 1.0, FREE), (1.0, 1.5, CONSTANT), (1.5, 2.5, FREE), (2.5, 3.0, 1)]

    def test_towards_infinity_they_never_end(self):
        plans = fixed_plans(options(step_size=2.0, stops=(-3.0,)), (0.0, -math.inf))
        found = [(p.t, p.t_end, p.pinned_to) for p in itertools.islice(plans, 4)]
        assert found == [(0.0, -2.0, FREE), (-2.0, -3.0, CONSTANT), (-3.0, -5.0, FREE), (-5.0, -7.0, FREE)]

    @pytest.mark.parametrize("given", [{}, {"step_size": 1.0}])
    def test_no_more_than_max_num_steps_are_allowed(self, given):
        assert len(self.plans(max_num_steps=3, **given)) == 3
        with pytest.raises(TooManySteps, match="the grid has 3 steps, more than max_num_steps=2"):
            self.plans(max_num_steps=2, **given)

    def test_ends_at_jumps_are_open_and_with_perturb_all_are(self):
        found = fixed_plans(options(stops=(2.0,), jumps=(2.0,)), TIMES)
        assert [(p.open_start, p.open_end) for p in found] == [(False, False), (False, True), (True, False)]
        assert {(p.open_start, p.open_end) for p in fixed_plans(options(perturb=True), TIMES)} == {(True, True)}
        assert {(p.open_start, p.open_end) for p in fixed_plans(options(), TIMES)} == {(False, False)}


class TestEvenSteps:
    @pytest.mark.parametrize(
        ("t_end", "step_size", "count"),
        [
            (1.0, 0.25, 4),
            (1.0, 0.3, 4),
            (1.0, 1 / 3, 3),
            (1.0, 5.0, 1),
            (1.0, 0.1, 10),
            (0.3, 0.1, 3),
            # A remainder of a billionth of a step is rounding error, one of two is not.
            (1.0 + 0.9e-9, 1.0, 1),
            (1.0 + 2e-9, 1.0, 2),
            (2.0**52, 2.0**20, 2**32),
        ],
    )
    def test_their_number(self, t_end, step_size, count):
        assert even_count(0.0, t_end, step_size) == even_count(0.0, -t_end, step_size) == count

    def test_a_remainder_below_the_spacing_of_times_is_none(self):
        # Steps of 64 ulp of 1e6, to 3 ulp beyond ten of them, which is 4/64 of a step; and 5 ulp beyond.
        ulp = math.ulp(1e6)
        assert even_count(1e6, 1e6 + 643 * ulp, 64 * ulp) == 10
        assert even_count(1e6, 1e6 + 645 * ulp, 64 * ulp) == 11

    def test_a_step_must_be_eight_times_the_spacing_of_times(self):
        assert even_count(1.0, 1.0 + 80 * ULP, 8 * ULP) >= 9
        with pytest.raises(StepSizeUnderflow, match="no longer advances times as large as 1 in float64"):
            even_count(1.0, 1.0 + 80 * ULP, 7.99 * ULP)
        with pytest.raises(StepSizeUnderflow, match="as large as 2"):
            even_count(-2.0, 1.0, 8 * ULP)

    def test_the_last_one_is_shortened_and_pinned(self):
        found = [(p.t, p.h, p.t_end, p.pinned_to) for p in even_steps(1.0, 0.25, 0.5, pinned_to=7)]
        assert found == [(1.0, -0.5, 0.5, FREE), (0.5, -0.25, 0.25, 7)]

    def test_steps_without_end_stop_where_they_no_longer_advance(self):
        steps = unbounded_steps(1.0, 0.5)
        found = [(p.t, p.h, p.t_end, p.pinned_to) for p in itertools.islice(steps, 3)]
        assert found == [(1.0, 0.5, 1.5, FREE), (1.5, 0.5, 2.0, FREE), (2.0, 0.5, 2.5, FREE)]
        with pytest.raises(StepSizeUnderflow, match=r"steps of 0.5 no longer advance t = 1e\+16"):
            next(unbounded_steps(1e16, 0.5))

    def test_points_are_pinned_to_equal_times(self):
        assert pins_on([0.0, 0.5, 1.0, 3.0], TIMES) == [CONSTANT, 1, 3]
