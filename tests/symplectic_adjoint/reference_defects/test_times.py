"""Defects 10, 11 and 19: jumps, times in single precision and times far from zero."""

import math

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.oracle import relative_error, replay
from tests.symplectic_adjoint.reference_defects.shared import (
    LOOSE,
    ROUNDING,
    T,
    agree,
    every_gradient,
    exact_gradients,
    gradients,
    scalar,
    vector,
)


@every_gradient
@pytest.mark.parametrize("at_the_jump", ["before", "after"])
@pytest.mark.parametrize("method", ["adaptive_heun", "bosh3", "dopri5", "dopri8", "rk4"])
def test_defect_10a_the_gradient_over_a_jump_is_right(method, at_the_jump, gradient):
    """Whichever of its two values f has at the jump itself."""
    theta, y0, tau = scalar(-0.7), vector(1.0, 2.0, requires_grad=True), 0.45

    def func(t, y):
        is_before = t < tau if at_the_jump == "after" else t <= tau
        return torch.where(is_before, theta, -2.0 * theta) * y

    adaptive = sa.METHODS[method].adaptive
    options = {"jump_t": [tau], **({} if adaptive else {"step_size": 0.1})}
    tolerances = LOOSE if method == "adaptive_heun" else {"rtol": 1e-6, "atol": 1e-8}
    ys = sa.odeint(func, y0, T, method=method, options=options, params=(theta,), gradient=gradient, **tolerances)
    of_theta, of_y0 = torch.autograd.grad(ys[-1].sum(), [theta, y0])
    # y(1) = exp(theta (tau - 2 (1 - tau))) y0
    exponent = tau - 2.0 * (1.0 - tau)
    bound = 1e-2 if method == "adaptive_heun" else 1e-4  # of the solve; the defect was worth 0.1 and more
    assert of_theta.item() == pytest.approx(exponent * math.exp(-0.7 * exponent) * 3.0, rel=bound)
    assert of_y0.tolist() == pytest.approx([math.exp(-0.7 * exponent)] * 2, rel=bound)


@exact_gradients
@pytest.mark.parametrize("method", ["adaptive_heun", "bosh3", "dopri5", "dopri8", "rk4"])
def test_defect_10a_the_gradient_over_a_jump_is_that_of_the_steps(method, gradient):
    net, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()

    def func(t, y):
        return torch.where(t < 0.45, 1.0, -0.5) * net(t, y)

    options = {"jump_t": [0.45], **({} if sa.METHODS[method].adaptive else {"step_size": 0.1})}
    solution = sa.solve(
        func, y0, t, method=method, options=options, params=(*net.parameters(),), gradient=gradient, **LOOSE
    )
    expected = replay(func, sa.METHODS[method], solution.grid, y0, t)
    agree(gradients(net, solution.ys, y0, t), gradients(net, expected, y0, t))


@exact_gradients
@pytest.mark.parametrize(
    ("start", "jump"), [(0.0948740334359443, 0.7198655451357155), (0.009653160562280216, 0.6999963143393383)]
)
def test_defect_10a_rounding_moves_no_step_over_a_jump(start, jump, gradient):
    """With these numbers start + (jump - start) is not jump but the number after it."""
    assert start + (jump - start) > jump

    def func(t, y):
        return torch.where(t < jump, 1.0, -3.0) * y

    y0, t = vector(1.0), vector(start, 1.0, requires_grad=True)
    solution = sa.solve(func, y0, t, method="heun2", options={"jump_t": [jump]}, gradient=gradient)
    (got,) = torch.autograd.grad(solution.ys[-1], t)
    (expected,) = torch.autograd.grad(replay(func, sa.METHODS["heun2"], solution.grid, y0, t)[-1], t)
    assert relative_error(got, expected) < ROUNDING


@every_gradient
@pytest.mark.parametrize("outputs", ["interpolate", "land"])
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "rk4"])
def test_defect_10b_no_jump_is_lost_to_an_output_before_it(method, outputs, gradient):
    """Piecewise constant slopes are integrated exactly, if every step ends where the slope changes."""
    jumps = [0.5, 0.8]

    def func(t, y):
        return torch.where(t < jumps[0], 1.0, torch.where(t < jumps[1], -2.0, 3.0)) * torch.ones_like(y)

    adaptive = sa.METHODS[method].adaptive
    options = {"jump_t": jumps, "outputs": outputs, **({"first_step": 5.0} if adaptive else {"step_size": 5.0})}
    y0, t = vector(0.0, requires_grad=True), vector(0.0, 0.45, 0.5, 0.79, 0.9, 1.0)
    ys = sa.odeint(func, y0, t, method=method, options=options, gradient=gradient, **LOOSE)
    assert ys[:, 0].tolist() == pytest.approx([0.0, 0.45, 0.5, -0.08, 0.2, 0.5], abs=1e-14)
    ys.sum().backward()
    assert y0.grad.item() == pytest.approx(6.0, rel=1e-12)


@every_gradient
@pytest.mark.parametrize("option", ["jump_t", "step_t"])
def test_defect_10c_steps_end_on_jump_t_and_step_t_in_decreasing_time(option, gradient):
    def func(t, y):
        return torch.where(t > -0.45, 1.0, -3.0) * y

    y0 = vector(1.0, requires_grad=True)
    for method, how in (("dopri5", {}), ("rk4", {"step_size": 0.05})):
        options = {option: vector(-0.8, -0.45), **how}
        solution = sa.solve(func, y0, -T, method=method, options=options, gradient=gradient, rtol=1e-6, atol=1e-8)
        assert {-0.8, -0.45} <= set(solution.grid.t.tolist())
        (of_y0,) = torch.autograd.grad(solution.ys[-1], y0)
        if option == "jump_t":  # y(-1) = exp(-0.45 + 3 0.55) y0
            assert of_y0.item() == pytest.approx(math.exp(-0.45 + 3 * 0.55), rel=1e-4)


@every_gradient
def test_defect_11_the_gradient_of_an_output_in_float32_stays_in_its_interval(gradient):
    """0.7 is another number in float32, before or after 0.7 itself: its output's gradient must not move for it."""
    net, y0 = SmallNet(), start().requires_grad_()
    with pytest.raises(ValueError, match="option 'dtype'"):
        sa.odeint(net, y0, T, options={"dtype": torch.float32}, gradient=gradient)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    got, expected = (
        gradients(net, sa.odeint(net, y0, times, options={"outputs": "land"}, gradient=gradient, **LOOSE), y0)
        for times in (t, t.double())
    )
    agree(got, expected)


@exact_gradients
@pytest.mark.parametrize("offset", [1e4, 1e8, 1e12])
def test_defect_19_the_gradient_stays_exact_at_a_large_time(offset, gradient):
    """Steps are stored as they were used; rebuilt from differences of times, 1e8 cost 1.5e-9 and 1e12 6.4e-5."""
    net, y0 = SmallNet(), start().requires_grad_()
    t = offset + vector(0.0, 0.5, 1.0)

    def func(t, y):  # autonomous, so that rounded times make no difference by themselves
        return net(torch.zeros_like(t), y)

    keywords = {"params": tuple(net.parameters()), **LOOSE}
    solution = sa.solve(func, y0, t, gradient=gradient, **keywords)
    backprop = sa.solve(func, y0, t, gradient="backprop", **keywords)
    assert torch.equal(solution.grid.h, backprop.grid.h)
    agree(gradients(net, solution.ys, y0), gradients(net, backprop.ys, y0))
    assert torch.equal(solution.ys, backprop.ys)
