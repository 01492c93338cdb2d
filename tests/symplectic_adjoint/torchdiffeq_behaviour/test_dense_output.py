"""odeint_dense: the solution as a function of time, with gradients."""

import pytest
import torch
import torchdiffeq

import symplectic_adjoint as sa
from tests.gradients import FORWARD, STANDARD, and_continuous, taking_turns
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import (
    EVENT,
    EVENT_BOUND,
    FIXED,
    Falling,
    Swing,
    error_bound,
    initial,
    sine,
    stepping,
    swing_start,
    times,
)


@pytest.mark.parametrize(
    ("gradient", "method", "direction"),
    and_continuous([*((method, 1.0) for method in ("adaptive_heun", "bosh3", "tsit5", "dop853")), ("dopri5", -1.0)]),
)
def test_is_as_accurate_as_the_steps_at_any_time(gradient, method, direction):
    y0, t = initial(torch.float64), direction * torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    keywords = stepping(method, torch.float64)
    dense = sa.odeint_dense(sine, y0, t[0], t[-1], gradient=gradient, **keywords)
    ys = dense(t.requires_grad_())
    bound = error_bound(method, torch.float64)
    growth = torch.exp(torch.sin(t.detach()))
    assert torch.allclose(ys, y0 * growth[:, None], rtol=bound, atol=bound)
    single = dense(t[7].detach())
    assert single.shape == (2,) and torch.allclose(single, ys[7], rtol=1e-12)
    of_y0, of_t = torch.autograd.grad(ys[6].sum(), [y0, t])
    assert torch.allclose(of_y0, growth[6].expand(2), rtol=bound, atol=bound)
    # Its slope is f, to one order of accuracy less.
    slope = float((torch.cos(t[6]) * ys[6].sum()).detach())
    assert float(of_t[6]) == pytest.approx(slope, rel=10 * bound) and not of_t[7:].any()


@pytest.mark.parametrize(("gradient", "method"), taking_turns(FIXED))
def test_of_fixed_steps_passes_through_them(odeint, gradient, method):
    y0, t = initial(torch.float64), torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    keywords = {"method": method, "options": {"step_size": 0.25}}
    dense = sa.odeint_dense(sine, y0, t[0], t[-1], gradient=gradient, **keywords)
    assert torch.allclose(dense(t), odeint(sine, y0, t, **keywords), rtol=1e-13)


@pytest.mark.parametrize("gradient", STANDARD)
def test_has_gradients_of_parameters(gradient):
    ball, y0 = Falling(), torch.tensor([3.0, 0.0], dtype=torch.float64)
    dense = sa.odeint_dense(ball, y0, times(0.0)[0], times(1.0)[0], gradient=gradient, **EVENT)
    (of_g,) = torch.autograd.grad(dense(times(0.6)[0])[0], ball.g)
    assert of_g.item() == pytest.approx(-0.5 * 0.6**2, abs=EVENT_BOUND)  # height 3 - g t^2 / 2


@pytest.mark.parametrize("gradient", FORWARD)
def test_agrees_with_torchdiffeqs(gradient):
    y0, t = swing_start("tensor", torch.float64), torch.linspace(0.0, 1.4, 15, dtype=torch.float64)
    arguments = (Swing(), y0, times(0.0)[0], times(1.5)[0])
    ours = sa.odeint_dense(*arguments, rtol=1e-8, atol=1e-9, gradient=gradient)(t)
    other = torchdiffeq.odeint_dense(*arguments, rtol=1e-8, atol=1e-9)
    # torchdiffeq's function takes one time per call. Both are outputs of order 4 in steps that err by 1e-8.
    assert torch.allclose(ours, torch.stack([other(time) for time in t]), atol=1e-5)
