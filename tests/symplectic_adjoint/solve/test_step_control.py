"""Step size control, tested without numerics where a stub will do."""

import math

import pytest
import torch

from symplectic_adjoint import odeint, solve
from symplectic_adjoint.errors import StepSizeUnderflow
from symplectic_adjoint.methods.registry import METHODS
from symplectic_adjoint.solve.grid import FREE
from symplectic_adjoint.solve.step_control import StepControl, rms_norm
from symplectic_adjoint.solve.step_sequences import AdaptiveSteps, even_steps, steps_between
from tests.fields import SmallNet, start

T = torch.tensor([0.0, 2.0], dtype=torch.float64)


class ScriptedControl(StepControl):
    """Error ratios as given, whatever the step."""

    def error_ratio(self, step, stiffness=None):
        return self.script.pop(0)  # type: ignore[attr-defined]


def scripted(script, **settings):
    control = ScriptedControl(rtol=1.0, atol=1.0, first_step=1.0, **settings)
    object.__setattr__(control, "script", list(script))
    return control


def run(script, pins=((10.0, 1),), **settings):
    """Return (t, h, accepted) of every attempt, and the sequence of steps."""
    sequence = AdaptiveSteps(METHODS["dopri5"], 0.0, list(pins), scripted(script, **settings))
    attempts = []
    while script and (plan := sequence.propose()) is not None:
        accepted = sequence.accepts(plan, step=None)  # type: ignore[arg-type]
        attempts.append((plan.t, plan.h, accepted))
        script = script[1:]
    return attempts, sequence


def test_an_accepted_step_grows_by_the_error_to_the_order():
    attempts, _ = run([0.5, 1.0])
    assert attempts[1][1] == pytest.approx(max(1.0, 0.9 * 0.5 ** (-1 / 5)))


def test_growth_and_shrinkage_are_bounded():
    attempts, _ = run([1e-30, 1e30, 1.0], ifactor=3.0, dfactor=0.5)
    assert [h for _, h, _ in attempts] == pytest.approx([1.0, 3.0, 1.5])


def test_a_rejected_step_is_retried_shorter_from_the_same_time_and_does_not_grow_at_once():
    attempts, sequence = run([2.0, 1e-9, 1e-9])
    assert [(t, accepted) for t, _, accepted in attempts[:2]] == [(0.0, False), (0.0, True)]
    assert attempts[1][1] == pytest.approx(0.9 * 2.0 ** (-1 / 5))
    assert attempts[2][1] == pytest.approx(attempts[1][1])
    assert sequence.rejected == 1


def test_pi_control_depends_on_the_previous_error_too():
    grown, _ = run([0.01, 0.5, 1.0], controller="PI")
    steady, _ = run([0.5, 0.5, 1.0], controller="PI")
    assert grown[2][1] / grown[1][1] < steady[2][1] / steady[1][1]


def test_a_step_cut_short_by_a_pin_does_not_shorten_the_next():
    attempts, _ = run([1.0, 1.0, 1.0], pins=[(1.0, 1), (1.001, 2), (10.0, 3)])
    assert [h for _, h, _ in attempts] == pytest.approx([1.0, 0.001, 1.0])


def test_a_step_is_stretched_over_a_sliver():
    attempts, _ = run([1.0], pins=[(1.005, 1)])
    assert attempts == [(0.0, 1.005, True)]


def test_steps_stay_between_min_step_and_max_step():
    attempts, _ = run([1e-9, 1e9, 1e9, 1e-9], min_step=0.5, max_step=1.5)
    # A step of min_step is accepted whatever its error.
    assert attempts == [(0.0, 1.0, True), (1.0, 1.5, False), (1.0, 0.5, True), (1.5, 0.5, True)]


def test_at_min_step_a_step_is_accepted_whatever_its_error():
    attempts, _ = run([1e9, 1e9], min_step=1.0)
    assert attempts[0][2] and attempts[1][2]


def test_underflow_names_the_time_and_what_to_do():
    with pytest.raises(StepSizeUnderflow, match=r"no longer advances t = 0 .*loosen rtol"):
        run([1e9] * 2000)


@pytest.mark.parametrize("controller", ["I", "PI"])
def test_both_controllers_meet_the_tolerance(controller):
    exact = odeint(SmallNet(), start(), T, method="dop853", rtol=1e-12, atol=1e-12)
    ys = odeint(SmallNet(), start(), T, rtol=1e-6, atol=1e-6, options={"controller": controller})
    # The tolerance is per step; the errors of some ten steps add up.
    assert (ys - exact).abs().max() < 2e-5


def test_decreasing_time_takes_the_mirrored_steps():
    def func(t, y):
        return torch.cos(t) * y

    forward = solve(func, start(), T, rtol=1e-5, atol=1e-5).grid
    backward = solve(lambda t, y: -func(-t, y), start(), -T, rtol=1e-5, atol=1e-5).grid
    assert torch.equal(forward.t, -backward.t) and torch.equal(forward.h, -backward.h)


def test_the_norm_of_the_user_is_used():
    def strict(x):
        return 1e3 * rms_norm(x)

    plain = solve(SmallNet(), start(), T, rtol=1e-4, atol=1e-4).stats
    stricter = solve(SmallNet(), start(), T, rtol=1e-4, atol=1e-4, options={"norm": strict}).stats
    assert stricter.accepted > plain.accepted


def test_the_first_step_is_taken_as_given():
    assert solve(SmallNet(), start(), T, rtol=1e-3, atol=1e-3, options={"first_step": 1e-3}).grid.h[0] == 1e-3


def test_even_steps_do_not_drift():
    plans = list(even_steps(0.0, 1.0, 0.1, pinned_to=1))
    assert [p.t for p in plans] == [n * 0.1 for n in range(10)]
    assert plans[-1].t_end == 1.0 and plans[-1].pinned_to == 1
    assert all(p.pinned_to == FREE and p.h == 0.1 for p in plans[:-1])


def test_steps_between_points_are_pinned_to_them():
    plans = steps_between([0.0, 0.5, 2.0], [1, 2])
    assert [(p.t, p.h, p.t_end, p.pinned_to) for p in plans] == [(0.0, 0.5, 0.5, 1), (0.5, 1.5, 2.0, 2)]


def test_step_sizes_do_not_depend_on_the_parameters():
    """Step sizes are never on the graph, which is why backprop equals the gradient on the recorded grid."""
    net, y0 = SmallNet(), start().requires_grad_()
    grid = solve(net, y0, T, rtol=1e-3, atol=1e-3, gradient="backprop").grid
    assert not grid.h.requires_grad and math.isclose(float(grid.h.sum()), 2.0)
