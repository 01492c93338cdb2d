"""y0, t and tolerances: what passes, and which entry a refusal names."""

import math
import re
import warnings

import pytest
import torch

from symplectic_adjoint.errors import NonFiniteError, ResolutionWarning
from symplectic_adjoint.solve.inputs import (
    checked_event_times,
    checked_layout,
    checked_times,
    checked_tolerance,
    non_finite_start,
    resolved_tolerances,
    savable,
)

REAL, COMPLEX = torch.ones(2), torch.ones(2, dtype=torch.complex64)
LAYOUT = checked_layout(REAL)
EPS = torch.finfo(torch.float32).eps


def times(*given, dtype=torch.float64):
    return torch.tensor(given, dtype=dtype)


class TestTimes:
    @pytest.mark.parametrize("given", [(0.0,), (0.0, 1.0), (1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (2.0, 2.0)])
    def test_they_may_run_in_either_direction_and_repeat(self, given):
        assert checked_times(times(*given)) == given

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ((0.0, 1.0, 0.5), "got 0 first, then t[1] = 1 and t[2] = 0.5"),
            ((1.0, 1.0, 0.5, 0.75), "got 1 first, then t[2] = 0.5 and t[3] = 0.75"),
        ],
    )
    def test_they_do_not_turn(self, given, named):
        with pytest.raises(ValueError, match=re.escape(named)):
            checked_times(times(*given))

    @pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
    def test_they_are_finite(self, value):
        with pytest.raises(ValueError, match=re.escape(f"t[1] must be finite, got {value}")):
            checked_times(times(0.0, value, 2.0))

    @pytest.mark.parametrize(
        "given", [torch.zeros(0), torch.zeros(1, 2), torch.tensor(0.0), torch.tensor([0, 1])], ids=str
    )
    def test_they_are_a_row_of_floating_point_numbers(self, given):
        with pytest.raises(ValueError, match="t must be a 1-D floating point tensor of times, got shape"):
            checked_times(given)

    def test_an_event_is_searched_in_the_direction_of_t(self):
        assert checked_event_times(min, (1.0, 1.5)) == (1.0, math.inf)
        assert checked_event_times(min, (1.0, 0.5)) == (1.0, -math.inf)
        with pytest.raises(ValueError, match=re.escape("got t[0] = t[1] = 1")):
            checked_event_times(min, (1.0, 1.0))
        for wrong in ((1.0,), (0.0, 1.0, 2.0)):
            with pytest.raises(ValueError, match=f"t must have two entries.* got {len(wrong)}"):
                checked_event_times(min, wrong)


class TestTolerances:
    @pytest.mark.parametrize("value", [0, 0.0, 1e-3, 7, torch.tensor(0.5)])
    def test_numbers_from_zero_on_pass(self, value):
        found = checked_tolerance("rtol", value, LAYOUT, REAL)
        assert found == float(value) and isinstance(found, float)

    @pytest.mark.parametrize("value", [-1e-30, math.inf, math.nan, times(0.5, -1.0), times(math.inf, 1.0)])
    def test_others_do_not(self, value):
        with pytest.raises(ValueError, match="rtol must be at least 0 and finite, got"):
            checked_tolerance("rtol", value, LAYOUT, REAL)

    def test_one_for_each_component_may_be_zero(self):
        assert checked_tolerance("atol", torch.tensor([0.0, 1.0]), LAYOUT, REAL).tolist() == [0.0, 1.0]

    @pytest.mark.parametrize("value", [True, "1e-3", None])
    def test_they_are_numbers(self, value):
        with pytest.raises(TypeError, match="rtol must be a number or a tensor"):
            checked_tolerance("rtol", value, LAYOUT, REAL)

    def test_what_the_dtype_resolves_passes_as_it_is(self):
        least = (EPS / 100, torch.finfo(torch.float32).smallest_normal)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert resolved_tolerances(*least, LAYOUT) == least

    def test_less_is_raised_to_that(self):
        given = torch.tensor([1.0, EPS / 200])
        with pytest.warns(ResolutionWarning, match="rtol = 5.96e-10 is below what float32 resolves, 1.19e-09"):
            rtol, _ = resolved_tolerances(given, 1.0, LAYOUT)
        assert rtol.tolist() == [1.0, torch.tensor(EPS / 100).item()]


def test_only_a_tensor_that_autograd_could_not_save_is_copied():
    with torch.inference_mode():
        made = torch.ones(2)
        assert savable(made) is made
    copy = savable(made)
    assert copy is not made and not copy.is_inference() and torch.equal(copy, REAL)
    assert savable(REAL) is REAL and savable("y0") == "y0"
    with torch.no_grad():
        assert savable(made) is made


class TestStates:
    @pytest.mark.parametrize(
        ("y0", "named"),
        [
            ((REAL, COMPLEX), "got torch.float32 in y0[0] and torch.complex64 in y0[1]: write .to(torch.complex64)"),
            ({"a": COMPLEX, "b": REAL.double()}, "got torch.complex64 in y0['a'] and torch.float64 in y0['b']"),
            ((REAL, REAL.to("meta")), "got cpu and, in y0[1], meta"),
            ((REAL, torch.ones(2, dtype=torch.int64)), "y0[1] must be a floating point or complex tensor"),
            ((), "y0 must have at least one tensor, got ()"),
        ],
    )
    def test_parts_must_match(self, y0, named):
        with pytest.raises(ValueError, match=re.escape(named)):
            checked_layout(y0)

    def test_a_part_that_is_no_tensor_is_named(self):
        with pytest.raises(TypeError, match=re.escape("y0[1] must be a tensor (or a tuple, list or dict of tensors)")):
            checked_layout((REAL, 1.0))

    def test_an_entry_that_is_not_finite_is_named(self):
        y0 = (REAL, torch.tensor([1.0, math.inf]))
        layout = checked_layout(y0)
        error = non_finite_start(layout, layout.pack(y0))
        assert isinstance(error, NonFiniteError)
        assert str(error) == "y0 is not finite: component (1,) of y[1] is inf"
        assert non_finite_start(LAYOUT, REAL) is None
