"""Ends that no step can reach: singularities of func, and times whose spacing is longer than the steps needed.

Every solve here once proposed the same step for ever. Bounds on f calls are about twice the counts measured.
"""

import math

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS

ADAPTIVE = [name for name, method in EXPLICIT_METHODS.items() if method.adaptive]
BOUND = 700  # 580 with the 13 stages of dopri8


class Counted:
    """A function of t and y that counts its calls and stops a solve that does not stop itself."""

    def __init__(self, func, bound=BOUND):
        self.func, self.bound, self.calls = func, bound, 0

    def __call__(self, t, y):
        self.calls += 1
        assert self.calls <= self.bound, f"t = {t.item():.17g} after {self.calls} calls"
        return self.func(t, y)


def bridge(end):
    """Return the field of straight lines to 1 at `end`, as in flow matching."""
    return lambda t, y: (1.0 - y) / (end - t)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def solve(func, t, method="dopri5", y0=0.0, bound=BOUND, **keywords):
    keywords = {"rtol": 1e-6, "atol": 1e-6} | keywords
    return sa.odeint(Counted(func, bound), torch.tensor([y0], dtype=torch.float64), t, method=method, **keywords)


class TestASingularityAtTheEnd:
    @pytest.mark.parametrize("method", ADAPTIVE)
    @pytest.mark.parametrize("t", [(0.0, 1.0), (0.0, -1.0), (-1.0, 0.0), (1.0, 0.0), (1e6, 1e6 + 1.0), (-3.0, 2.0)])
    def test_is_named_within_some_hundred_calls(self, t, method):
        with pytest.raises(sa.NonFiniteError, match=rf"at t = {t[1]:.9g} .*shorter steps.*end the solve before it"):
            solve(bridge(t[1]), times(*t), method)

    @pytest.mark.parametrize("y0", [0.0, 3.0, 1.0])
    def test_is_found_from_every_start(self, y0):
        with pytest.raises(sa.NonFiniteError, match="at t = 1 "):
            solve(bridge(1.0), times(0.0, 1.0), y0=y0)

    @pytest.mark.parametrize("controller", ["I", "PI"])
    def test_is_found_by_both_controllers(self, controller):
        with pytest.raises(sa.NonFiniteError, match="at t = 1 "):
            solve(bridge(1.0), times(0.0, 1.0), options={"controller": controller})

    def test_is_found_with_single_precision(self):
        with pytest.raises(sa.NonFiniteError, match="end the solve before it"):
            sa.odeint(Counted(bridge(1.0)), torch.zeros(1), torch.tensor([0.0, 1.0]), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("end", [1.0, 0.0])
    @pytest.mark.parametrize("options", [{"step_t": "end"}, {"outputs": "land"}])
    def test_is_found_where_a_step_has_to_end(self, options, end):
        options = {key: [end] if value == "end" else value for key, value in options.items()}
        with pytest.raises(sa.NonFiniteError, match=f"at t = {end:g} "):
            solve(bridge(end), times(end - 1.0, end, end + 1.0), options=options)

    @pytest.mark.parametrize("gradient", ["symplectic", "backprop", "revolve", "baseline", "reversible"])
    def test_is_found_in_the_forward_pass_of_every_gradient(self, gradient):
        y0 = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        with pytest.raises(sa.NonFiniteError, match=r"at t = 1 .*end the solve before it"):
            sa.odeint(Counted(bridge(1.0)), y0, times(0.0, 1.0), gradient=gradient, rtol=1e-3, atol=1e-3)

    def test_leaves_the_outputs_before_it(self):
        y0 = torch.zeros(1, dtype=torch.float64)
        t = times(0.0, 0.5, 1.0)
        solution = sa.solve(Counted(bridge(1.0)), y0, t, rtol=1e-6, atol=1e-6, on_failure="return")
        assert solution.ys[1].item() == pytest.approx(0.5, abs=1e-12)  # y = t, exact for every method
        assert type(solution.failure) is sa.NonFiniteError

    def test_is_no_end_if_func_is_finite_there(self):
        """A step in which the state leaves the domain of func, by rounding or by its error, is shortened."""
        ys = solve(lambda t, y: torch.sqrt(1.0 - y * y), times(0.0, math.pi / 2), bound=1500)
        assert ys[-1].item() == pytest.approx(1.0, abs=1e-6)  # the tolerance

    def test_is_found_in_the_second_solve_of_the_continuous_gradient(self):
        class Decay(torch.nn.Module):
            calls = 0  # func changes it itself, so that it is not put back for the backward pass

            def forward(self, t, y):
                self.calls += 1
                assert self.calls <= 4 * BOUND
                return -y * (t / t.clamp(min=0.1 if self.calls < 2 * BOUND else 0.0))  # 0 / 0 at t = 0 in the end

        func, y0 = Decay(), torch.ones(1, dtype=torch.float64, requires_grad=True)
        ys = sa.odeint(func, y0, times(0.0, 1.0), gradient="continuous", rtol=1e-6, atol=1e-6)
        func.calls = 2 * BOUND
        with pytest.raises(sa.NonFiniteError, match="at t = 0 "):
            ys[-1].sum().backward()


class TestFuncThatIsNotFiniteBeyondATime:
    @pytest.mark.parametrize("t", [(-1.0, 1.0), (0.0, 1.0), (1.0, -1.0), (0.0, -1.0)])
    def test_is_named_at_zero_where_steps_could_shrink_for_long(self, t):
        ahead = math.copysign(1.0, t[1])
        with pytest.raises(sa.NonFiniteError, match="end the solve before it"):
            solve(lambda t, y: -y if ahead * t <= 0.0 else y * math.nan, times(*t), y0=1.0, bound=1400)

    def test_is_passed_by_shorter_steps_if_a_long_one_overflowed(self):
        """The first steps overflow until they are shorter by twelve orders of magnitude."""
        ys = solve(lambda t, y: -1e12 * y**3, times(0.0, 1e-8), y0=1.0, options={"first_step": 1e-8})
        assert ys[-1].item() == pytest.approx(1.0 / math.sqrt(1.0 + 2e4), rel=1e-4)  # tens of steps at rtol 1e-6


class TestTimesOfAFewUlps:
    @pytest.mark.parametrize("method", ADAPTIVE)
    @pytest.mark.parametrize("t", [(1e16, 8.0), (-1e16, 8.0), (1e18, 1000.0)])
    @pytest.mark.parametrize("reverse", [False, True])
    def test_are_named_if_the_steps_needed_are_shorter(self, t, reverse, method):
        t = times(t[0], t[0] + t[1])
        with pytest.raises(
            sa.StepSizeUnderflow, match=r"no longer advances t = -?1e\+1[68] .*measure time in a larger"
        ):
            solve(lambda t, y: -y, t.flip(0) if reverse else t, method, y0=1.0)

    @pytest.mark.parametrize("gap", [2.0, 8.0, 400.0])
    @pytest.mark.parametrize("start", [1e16, -1e16])
    @pytest.mark.parametrize("reverse", [False, True])
    def test_are_solved_if_the_steps_needed_are_not(self, start, gap, reverse):
        """The steps were rounded in t but not in y, which was 3 % off after 400 without a word."""
        t = times(start, start + gap)
        ys = solve(lambda t, y: -0.01 * y, t.flip(0) if reverse else t, y0=1.0)
        # Tens of steps of rtol 1e-6, and the growth of their errors by e^4 backwards in time.
        assert ys[-1].item() == pytest.approx(math.exp(0.01 * gap * (1 if reverse else -1)), rel=2e-5)

    def test_are_solved_from_a_first_step_of_less_than_an_ulp(self):
        ys = solve(lambda t, y: -y, times(1e8, 1e8 + 1.0), y0=1.0, options={"first_step": 1e-8})
        assert ys[-1].item() == pytest.approx(math.exp(-1.0), rel=1e-5)

    def test_are_solved_in_steps_shorter_than_the_gap(self):
        """A step of all four ulps fails, and a retry must not be lengthened to it."""
        ys = solve(lambda t, y: -0.1 * y, times(1e16, 1e16 + 8.0), y0=1.0)
        assert ys[-1].item() == pytest.approx(math.exp(-0.8), rel=1e-6)

    @pytest.mark.parametrize("gradient", ["symplectic", "aca", "revolve", "continuous"])
    def test_have_the_gradient_of_the_steps_taken(self, gradient):
        def gradients(gradient):
            rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
            y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
            t = times(1e16, 1e16 + 8.0)
            ys = sa.odeint(lambda t, y: -rate * y, y0, t, params=(rate,), gradient=gradient, rtol=1e-6, atol=1e-6)
            return torch.cat([x.reshape(1) for x in torch.autograd.grad(ys[-1].sum(), (y0, rate))])

        bound = 1e-12 if gradient != "continuous" else 1e-5
        torch.testing.assert_close(gradients(gradient), gradients("backprop"), rtol=bound, atol=0.0)

    def test_end_with_an_event_on_the_nearest_one(self):
        y0, t = torch.ones(1, dtype=torch.float64), times(1e16, 2e16)
        for method in ("dopri5", "dopri8"):
            func = Counted(lambda t, y: -0.01 * y, bound=3000)
            event_t, _ = sa.odeint(func, y0, t, event_fn=lambda t, y: y[0] - 0.5, method=method)
            assert event_t.item() - 1e16 == pytest.approx(100.0 * math.log(2.0), abs=4.0)


def test_a_rejected_step_is_not_repeated_where_min_step_lengthens_the_retry_to_the_pin():
    def wild(t, y):
        return 1e3 * torch.sin(1e3 * y)

    options = {"first_step": 1.0, "min_step": 1.0 / 1.005}
    solve(wild, times(0.0, 1.0), y0=1.0, options=options)
