"""The formulas of step size control by number: norms, factors, the first step."""

import math
import warnings

import pytest
import torch

from symplectic_adjoint import METHODS
from symplectic_adjoint.errors import ResolutionWarning
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.solve.step_control import StepControl, initial_step, rms_norm
from symplectic_adjoint.steps.runge_kutta import Step

TOLERANCE = {"rtol": 0.25, "atol": 1.0}
COARSE = Resolution(1.0, 1.0)


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


class KnownStep:
    """A step from y to y_end with known error estimates, which come anew each time: the caller may overwrite them."""

    def __init__(self, y, end, *errors, rounding=None, resolution=None):
        self.y, self._end, self._errors, self._rounding = y, end, errors, rounding
        self.f = type("F", (), {"resolution": resolution})

    def measured_norms(self):
        return None

    def errors(self):
        return [error.clone() for error in self._errors]

    def end(self):
        return self._end

    def rounding(self, resolution):
        return [self._rounding for _ in self._errors]


class TestNorms:
    def test_the_default_is_the_root_of_the_mean_square(self):
        assert rms_norm(vector(3.0, -1.0, 3.0, 3.0, 1.0, 1.0, 3.0, 1.0)).item() == pytest.approx(5**0.5, rel=1e-15)
        assert rms_norm(vector()).item() == 0.0

    def test_each_component_has_the_tolerance_of_its_larger_end(self):
        # 1 + max(|-4|, |0|)/4 = 2 and 1 + max(|4|, |-12|)/4 = 4: sqrt((1^2 + 7^2)/2).
        step = KnownStep(vector(-4.0, 4.0), vector(0.0, -12.0), vector(-2.0, 28.0))
        assert StepControl(**TOLERANCE).error_ratio(step) == 5.0

    def test_rounding_widens_the_tolerance(self):
        # 2 + 3 and 4 + 3: (10/5, 14/7).
        step = KnownStep(
            vector(-4.0, 4.0),
            vector(0.0, -12.0),
            vector(10.0, 14.0),
            rounding=vector(3.0, 3.0),
            resolution=Resolution(2**-8, 2**-8),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # rtol = 1/4 is resolved
            assert StepControl(**TOLERANCE).error_ratio(step) == 2.0

    @pytest.mark.parametrize(("rtol", "warned"), [(0.0101, False), (0.0099, True), (torch.tensor([1.0, 0.0099]), True)])
    def test_a_tolerance_below_a_hundredth_of_the_resolution_is_warned_of(self, rtol, warned):
        step = KnownStep(vector(1.0, 1.0), vector(1.0, 1.0), vector(1.0, 1.0), rounding=0.0, resolution=COARSE)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            StepControl(rtol, 1.0).error_norms(step)
        assert [warning.category for warning in caught] == [ResolutionWarning] * warned
        assert not warned or "rtol = 0.0099 is below what func's values resolve, 0.01" in str(caught[0].message)

    def test_two_estimates_are_combined_as_hairer_does(self):
        # err5^2 / sqrt(err5^2 + err3^2/100), here 9 / sqrt(9 + 16).
        step = KnownStep(vector(0.0), vector(0.0), vector(3.0), vector(40.0))
        assert StepControl(**TOLERANCE).error_ratio(step) == pytest.approx(1.8, rel=1e-15)
        nothing = KnownStep(vector(0.0), vector(0.0), vector(0.0), vector(40.0))
        assert StepControl(**TOLERANCE).error_ratio(nothing) == 0.0

    def test_the_worst_component_is_that_of_the_largest_ratio(self):
        control = StepControl(**TOLERANCE)
        assert (
            control.worst_component(KnownStep(vector(0.0, 12.0, 0.0), vector(0.0, 0.0, 0.0), vector(2.0, 7.0, -3.0)))
            == 2
        )
        assert control.worst_component(KnownStep(vector(0.0, 0.0), vector(0.0, 0.0), vector(9.0, math.nan))) == 1
        assert control.worst_component(KnownStep(vector(), vector(), vector())) is None

    def test_a_norm_of_the_caller_is_measured_with_and_must_be_one_number(self):
        assert StepControl(**TOLERANCE, norm=lambda x: x.abs().amax()).measure(vector(1.0, -3.0)).item() == 3.0
        assert StepControl(**TOLERANCE, norm=lambda x: 2.5).measure(vector(1.0)).item() == 2.5
        with pytest.raises(TypeError, match=r"must return one number, got a tensor of shape \(2,\)"):
            StepControl(**TOLERANCE, norm=lambda x: x).measure(vector(1.0, 2.0))


class TestFactor:
    @pytest.mark.parametrize(
        ("controller", "ratio", "previous", "factor"),
        [
            # I: 0.9 ratio^(-1/2), at least 1 where accepted, and 0.2 to 10.
            ("I", 0.25, 9.0, 1.8),
            ("I", 1.0, 9.0, 1.0),
            ("I", 0.9, 9.0, 1.0),
            ("I", 4.0, 9.0, 0.45),
            ("I", 100.0, 9.0, 0.2),
            ("I", 1e-6, 9.0, 10.0),
            # PI: 0.9 ratio^(-0.7/2) previous^(0.4/2), previous at least 1e-4; after a rejection as I.
            ("PI", 2.0**-20, 2.0**-5, 10.0),
            ("PI", 2.0**-4, 2.0**-5, 0.9 * 2**1.4 / 2),
            ("PI", 1.0, 2.0**-5, 0.45),
            ("PI", 2.0**-4, 1e-4, 0.9 * 2**1.4 * 10**-0.8),
            ("PI", 2.0**-4, 1e-9, 0.9 * 2**1.4 * 10**-0.8),
            ("PI", 4.0, 2.0**-5, 0.45),
        ],
    )
    def test_it_is_that_of_the_formula_within_its_bounds(self, controller, ratio, previous, factor):
        # Powers are rounded differently from products.
        assert StepControl(**TOLERANCE, controller=controller).factor(ratio, previous, 2) == pytest.approx(
            factor, rel=1e-14
        )

    def test_pi_may_shorten_an_accepted_step_to_its_bound(self):
        assert StepControl(**TOLERANCE, controller="PI", dfactor=0.5).factor(1.0, 1e-4, 2) == 0.5

    @pytest.mark.parametrize(
        ("bounds", "ratio", "factor"),
        [
            ({"ifactor": 3.0}, 0.0, 3.0),
            ({"ifactor": math.inf}, 0.0, 10.0),
            ({"dfactor": 0.5}, math.nan, 0.5),
            ({"dfactor": 0.5}, math.inf, 0.5),
            ({"dfactor": 0.0}, math.inf, 0.2),
        ],
    )
    def test_where_the_ratio_says_nothing_it_is_a_bound(self, bounds, ratio, factor):
        assert StepControl(**TOLERANCE, **bounds).factor(ratio, 1.0, 2) == factor


class TestFirstStep:
    """Hairer's estimate for y' = slope(y) from y = 3, with the tolerance 1/4 + 1/4 3 = 1."""

    def size(self, slope, span=1e6, y0=3.0, order=2):
        control = StepControl(rtol=0.25, atol=0.25)
        y = vector(y0)
        return initial_step(lambda t, y: slope(y), 0.0, y, slope(y), span, order, control)

    def test_it_is_a_hundredth_of_the_tolerance_to_the_order(self):
        # d0 = 3, d1 = 6, h0 = 0.01 3/6; f1 = 6 + 12 h0, d2 = 12: (0.01/12)^(1/2).
        assert self.size(lambda y: 2 * y) == pytest.approx((0.01 / 12) ** 0.5, rel=1e-12)
        assert self.size(lambda y: 2 * y, order=3) == pytest.approx((0.01 / 12) ** (1 / 3), rel=1e-12)

    def test_it_is_at_most_a_hundred_times_the_trial_step(self):
        # d0 = 3, d1 = 3e-4, h0 = 100; a constant slope has d2 = 0: (0.01/3e-4)^(1/2) = 5.8 is less than 1e4.
        assert self.size(lambda y: 0 * y + 3e-4) == pytest.approx((0.01 / 3e-4) ** 0.5, rel=1e-12)
        # d0 = 3e-4, d1 = 30, h0 = 1e-7.
        tiny = StepControl(rtol=0.0, atol=1.0)
        found = initial_step(lambda t, y: 0 * y + 0.03, 0.0, vector(3e-5), vector(0.03), 1e6, 2, tiny)
        assert found == pytest.approx(100 * 0.01 * 3e-5 / 0.03, rel=1e-12)

    @pytest.mark.parametrize("y0", [0.0, 0.9e-5])
    def test_a_state_that_is_nearly_zero_is_tried_with_a_millionth(self, y0):
        control = StepControl(rtol=0.0, atol=1.0)
        found = initial_step(lambda t, y: 0 * y + 1e-3, 0.0, vector(y0), vector(1e-3), 1e6, 2, control)
        assert found == pytest.approx(1e-4, rel=1e-12)

    def test_a_slope_that_is_nearly_zero_is_tried_with_a_millionth(self):
        control = StepControl(rtol=0.0, atol=1.0)
        found = initial_step(lambda t, y: 0 * y + 0.9e-5, 0.0, vector(3.0), vector(0.9e-5), 1e6, 2, control)
        assert found == pytest.approx(1e-4, rel=1e-12)

    @pytest.mark.parametrize(("slope", "size"), [(0.0, 1e-6), (0.9e-15, 1e-6), (1.1e-15, 1e-4)])
    def test_without_any_slope_it_is_the_trial_step(self, slope, size):
        assert self.size(lambda y: 0 * y + slope) == pytest.approx(size, rel=1e-12)

    def test_it_is_no_longer_than_the_span_and_has_its_sign(self):
        assert self.size(lambda y: 2 * y, span=1e-3) == 1e-3
        assert self.size(lambda y: 2 * y, span=-1e-3) == -1e-3
        assert self.size(lambda y: 2 * y, span=-1e6) == pytest.approx(-((0.01 / 12) ** 0.5), rel=1e-12)

    def test_f_that_is_not_finite_is_left_to_the_step(self):
        assert self.size(lambda y: y / 0) == 1e-6
        assert self.size(lambda y: y / 0, span=-1e-7) == -1e-7
        # Finite at the start, and nowhere else: the trial step 0.01 3/6.
        assert self.size(lambda y: torch.where(y == 3.0, 6.0, math.inf)) == pytest.approx(0.005, rel=1e-12)


def test_a_step_of_a_method_is_measured_with_its_own_estimate():
    # y' = 1 + 2 t over [0, 1] from 0: Heun's and Euler's methods differ by 1, the tolerance is 1/4 2 + 1.
    class F:
        f_calls, code, resolution = 0, None, None

        def __call__(self, t, y):
            return torch.full_like(y, 1 + 2 * t)

    step = Step(F(), METHODS["adaptive_heun"], 0.0, 1.0, 1.0, vector(0.0))
    assert StepControl(**TOLERANCE).error_ratio(step) == pytest.approx(1 / 1.5, rel=1e-15)
