"""Options at their bounds: what is just allowed, what is not, and what is read of times."""

import math

import pytest
import torch

from symplectic_adjoint import METHODS
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.solve.options import MAX_EVENT_STEPS, read_options

TIMES = (0.0, 1.0, 2.0)


def read(options=None, method="dopri5", times=TIMES, grid=None, dtype=torch.float64):
    return read_options(options, METHODS[method], 1e-3, 1e-6, times, lambda make: grid, time_dtype=dtype)[0]


class TestControl:
    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("first_step", [1e-9, 1, 5.0]),
            ("min_step", [0, 0.0, 2.0]),
            ("max_step", [1e-9, math.inf]),
            ("safety", [1e-9, 1.0]),
            ("ifactor", [1.0, math.inf]),
            ("dfactor", [0.0, 1.0]),
        ],
    )
    def test_bounds_that_are_included(self, name, values):
        for value in values:
            found = getattr(read({name: value}).control, name)
            assert found == value and isinstance(found, float)

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("first_step", [0.0, -1.0, math.inf, math.nan]),
            ("min_step", [-1e-9, math.inf, math.nan]),
            ("max_step", [0.0, -1.0, math.nan]),
            ("safety", [0.0, 1.0001, -0.5]),
            ("ifactor", [0.9999, 0.0, math.nan]),
            ("dfactor", [-1e-9, 1.0001, math.nan]),
            ("step_size", [0.0, -1.0, math.inf]),
        ],
    )
    def test_bounds_that_are_not(self, name, values):
        for value in values:
            with pytest.raises(ValueError, match=f"option '{name}'"):
                read({name: value})

    @pytest.mark.parametrize("value", [True, "1", None, [1.0]])
    def test_what_is_no_number(self, value):
        with pytest.raises(TypeError, match="option 'safety' must be a number"):
            read({"safety": value})

    def test_numbers_of_torch_are_numbers_without_a_gradient(self):
        assert read({"safety": torch.tensor(0.5)}).control.safety == 0.5
        with pytest.raises(ValueError, match=r"option 'safety' requires a gradient.*give safety.item\(\)"):
            read({"safety": torch.tensor(0.5, requires_grad=True)})

    def test_the_largest_step_is_not_below_the_smallest(self):
        assert read({"min_step": 0.5, "max_step": 0.5}).control.max_step == 0.5
        with pytest.raises(ValueError, match=r"option 'max_step' is 0.5, below min_step = 0.75"):
            read({"min_step": 0.75, "max_step": 0.5})

    def test_the_defaults(self):
        control = read().control
        assert (control.first_step, control.min_step, control.max_step) == (None, 0.0, math.inf)
        assert (control.safety, control.ifactor, control.dfactor, control.controller) == (0.9, 10.0, 0.2, "I")
        assert (control.rtol, control.atol) == (1e-3, 1e-6)
        assert read({"controller": "PI"}).control.controller == "PI"

    @pytest.mark.parametrize("options", [{"step_size": 0.5}, {"grid_points": TIMES}])
    def test_a_grid_turns_it_off(self, options):
        assert read(options).control is None
        with pytest.raises(UnsupportedCombination, match="option 'safety' belongs to adaptive step sizes"):
            read({**options, "safety": 0.5})


class TestSteps:
    @pytest.mark.parametrize("value", [0, -1, True, 1.0, "3"])
    def test_a_number_of_steps_is_a_positive_integer(self, value):
        with pytest.raises(ValueError, match="option 'max_num_steps' must be a positive integer"):
            read({"max_num_steps": value})

    def test_the_number_of_steps_before_an_event_has_a_default_of_its_own(self):
        assert (read().max_num_steps, read().max_event_steps) == (2**31 - 1, MAX_EVENT_STEPS)
        given = read({"max_num_steps": 1})
        assert (given.max_num_steps, given.max_event_steps, given.control.max_num_steps) == (1, 1, 1)

    def test_two_grids_are_one_too_many(self):
        with pytest.raises(UnsupportedCombination, match="'step_size' and 'grid_points' both give the grid"):
            read({"grid_points": TIMES, "step_size": 0.5})

    @pytest.mark.parametrize(
        ("outputs", "method", "land"),
        [
            (None, "dopri5", False),
            (None, "dopri8", True),
            ("land", "dopri5", True),
            ("interpolate", "dopri8", False),
            (None, "rk4", False),
        ],
    )
    def test_outputs_are_landed_on_where_dense_output_is_too_inaccurate_or_if_asked_for(self, outputs, method, land):
        assert read({"outputs": outputs}, method).land is land

    def test_a_fixed_grid_never_lands_unless_asked_to(self):
        assert read({"step_size": 0.5}, "dopri8").land is False
        assert read({"step_size": 0.5, "outputs": "land"}, "dopri8").land is True


class TestStops:
    def test_those_within_both_ends_count_and_jumps_are_stops_too(self):
        found = read({"step_t": [-0.1, 0.0, 0.5, 2.0, 2.1], "jump_t": torch.tensor([1.5, 3.0])})
        assert found.stops == {0.0, 0.5, 1.5, 2.0} and found.jumps == {1.5}
        backwards = read({"step_t": [0.5, 3.0]}, times=TIMES[::-1])
        assert backwards.stops == {0.5}

    def test_one_that_equals_an_entry_of_t_in_its_dtype_is_that_entry(self):
        entry = torch.tensor(0.7).item()  # 0.7 in float32
        times = (0.0, entry, 1.0)
        assert read({"step_t": [0.7]}, times=times, dtype=torch.float32).stops == {entry}
        assert read({"step_t": [0.7]}, times=times).stops == {0.7}
        # Entries that are one number in this dtype match nothing.
        close = (0.0, 0.5, 0.5 + 1e-9, 1.0)
        assert read({"step_t": [0.5 + 2e-9]}, times=close, dtype=torch.float32).stops == {0.5 + 2e-9}

    @pytest.mark.parametrize("value", [math.inf, math.nan])
    def test_they_are_finite(self, value):
        with pytest.raises(ValueError, match="option 'jump_t' must hold finite times"):
            read({"jump_t": [value]})

    @pytest.mark.parametrize("value", ["0.5", 0.5, [True], [1j], [None], [torch.tensor(1j)], torch.tensor([1j])])
    def test_they_are_real_numbers(self, value):
        with pytest.raises(TypeError, match="option 'step_t' must "):
            read({"step_t": value})

    @pytest.mark.parametrize("many", [list, set, tuple, frozenset, lambda x: torch.tensor(x).numpy()])
    def test_they_may_come_in_anything(self, many):
        assert read({"step_t": many([0.5, 1.5])}).stops == {0.5, 1.5}
        assert read({"step_t": [torch.tensor(0.5)]}).stops == {0.5}

    def test_they_are_constants(self):
        for value in (torch.tensor([0.5], requires_grad=True), [torch.tensor(0.5, requires_grad=True)]):
            with pytest.raises(ValueError, match="gives times that require a gradient"):
                read({"step_t": value})


class TestPoints:
    def test_equal_neighbours_are_one_point(self):
        assert read({"grid_points": [0.0, 0.0, 0.5, 0.5, 2.0, 2.0]}).points == (0.0, 0.5, 2.0)
        assert read({"grid_points": [2.0, 0.5, 0.0]}, times=TIMES[::-1]).points == (2.0, 0.5, 0.0)

    def test_they_may_be_constructed(self):
        assert read({"grid_constructor": len}, method="rk4", grid=[0.0, 0.25, 2.0]).points == (0.0, 0.25, 2.0)
        assert read({"grid_constructor": None}, method="rk4").points is None

    @pytest.mark.parametrize("points", [[], [0.1, 2.0], [0.0, 1.9], [2.0, 0.0]])
    def test_they_run_from_the_first_time_to_the_last(self, points):
        with pytest.raises(ValueError, match=r"must start at t\[0\] = 0 and end at t\[-1\] = 2, got"):
            read({"grid_points": points})

    @pytest.mark.parametrize(("points", "times"), [([0.0, 1.5, 0.5, 2.0], TIMES), ([2.0, 0.5, 1.5, 0.0], TIMES[::-1])])
    def test_they_do_not_turn(self, points, times):
        with pytest.raises(ValueError, match=r"must run strictly from t\[0\] to t\[-1\], got"):
            read({"grid_points": points}, times=times)
