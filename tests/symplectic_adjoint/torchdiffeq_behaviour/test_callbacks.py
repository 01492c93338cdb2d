"""callback_step before every attempted step, then callback_accept_step or callback_reject_step."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.gradients import FORWARD, STANDARD, and_continuous, taking_turns
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import ADAPTIVE, FIXED, Swing, swing_start, times


class CalledBack(Swing):
    """Records the arguments of its callbacks."""

    def __init__(self):
        super().__init__()
        self.calls = {"step": [], "accept_step": [], "reject_step": []}

    def callback_step(self, t0, y0, dt):
        self.calls["step"].append((float(t0), y0, float(dt)))

    def callback_accept_step(self, t0, y0, dt):
        self.calls["accept_step"].append((float(t0), y0, float(dt)))

    def callback_reject_step(self, t0, y0, dt):
        self.calls["reject_step"].append((float(t0), y0, float(dt)))

    def counts(self):
        return [len(calls) for calls in self.calls.values()]


@pytest.mark.parametrize(
    ("gradient", "method", "direction"), and_continuous([*((method, 1.0) for method in ADAPTIVE), ("dopri5", -1.0)])
)
def test_every_attempted_step_is_accepted_or_rejected(gradient, method, direction):
    func, y0 = CalledBack(), torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)
    tolerance = 1e-3 if sa.METHODS[method].order < 3 else 1e-5
    keywords = {"method": method, "rtol": tolerance, "atol": tolerance, "options": {"first_step": 2.0}}
    solution = sa.solve(func, y0, direction * times(0.0, 2.0), gradient=gradient, **keywords)
    attempted, accepted, rejected = func.counts()
    assert attempted == accepted + rejected
    assert [accepted, rejected] == [solution.stats.accepted, solution.stats.rejected] and rejected > 0
    assert [(t0, dt) for t0, _, dt in func.calls["accept_step"]] == list(
        zip(solution.grid.t.tolist(), solution.grid.h.tolist(), strict=True)
    )
    solution.ys.sum().backward()
    assert func.counts() == [attempted, accepted, rejected]  # the backward pass calls none of them


@pytest.mark.parametrize(("gradient", "method"), taking_turns(FIXED))
def test_on_a_fixed_grid_every_step_is_reported_and_none_rejected(odeint, gradient, method):
    func = CalledBack()
    odeint(func, swing_start("tensor", torch.float64), times(0.0, 1.0), method=method, options={"step_size": 0.25})
    assert [t0 for t0, _, _ in func.calls["step"]] == [0.0, 0.25, 0.5, 0.75]
    assert {dt for _, _, dt in func.calls["step"]} == {0.25}
    assert len(func.calls["reject_step"]) == 0


@pytest.mark.parametrize("gradient", FORWARD)
def test_callbacks_are_passed_the_state_in_its_structure(odeint, gradient):
    func, y0 = CalledBack(), swing_start("tuple", torch.float64)
    odeint(func, y0, times(0.0, 1.0), rtol=1e-3, atol=1e-3)
    first = func.calls["step"][0][1]
    assert isinstance(first, tuple) and all(torch.equal(a, b) for a, b in zip(first, y0, strict=True))


@pytest.mark.parametrize("gradient", FORWARD)
def test_a_plain_functions_callback_is_called_too(odeint, gradient):
    def func(t, y):
        return -y

    calls = []
    func.callback_step = lambda t0, y0, dt: calls.append(float(dt))
    odeint(func, torch.ones(2), times(0.0, 1.0), method="euler", options={"step_size": 0.5})
    assert calls == [0.5, 0.5]


class CalledBackByTheAdjoint(Swing):
    def __init__(self):
        super().__init__()
        self.sizes = []

    def callback_step_adjoint(self, t0, y0, dt):
        self.sizes.append(float(dt))


def test_the_continuous_gradient_calls_the_callback_of_its_second_solve():
    func, y0 = CalledBackByTheAdjoint(), torch.ones(2, dtype=torch.float64, requires_grad=True)
    ys = sa.odeint(func, y0, times(0.0, 1.0), rtol=1e-3, atol=1e-3, gradient="continuous")
    assert not func.sizes
    ys[-1].sum().backward()
    assert func.sizes and all(dt < 0 for dt in func.sizes)


@pytest.mark.parametrize("gradient", [name for name in STANDARD if name != "continuous"])
def test_a_callback_of_a_second_solve_is_never_called_where_there_is_none_with_a_warning(odeint, gradient):
    func, y0 = CalledBackByTheAdjoint(), torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.warns(sa.IgnoredArgumentWarning, match=rf"func.callback_step_adjoint: no effect.*'{gradient}'"):
        ys = odeint(func, y0, times(0.0, 1.0))
    ys[-1].sum().backward()
    assert not func.sizes
