"""Defects 1 to 9: gradients that are missing, wrong or cannot be asked for twice."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.symplectic_adjoint.reference_defects.shared import (
    LOOSE,
    ROUNDING,
    TIGHT,
    T,
    agree,
    every_gradient,
    exact_gradients,
    gradients,
    scalar,
    vector,
)


@every_gradient
def test_defect_01_euler_has_a_gradient(gradient):
    theta, y0, steps = scalar(-0.7), vector(1.0, 2.0, requires_grad=True), 10
    ys = sa.odeint(
        lambda t, y: theta * y, y0, T, method="euler", options={"step_size": 1 / steps}, params=(theta,),
        gradient=gradient,
    )  # fmt: skip
    of_theta, of_y0 = torch.autograd.grad(ys[-1].sum(), [theta, y0])
    # y_n = (1 + h theta)^n y0; the continuous gradient's own Euler steps err by about h.
    factor = 1 - 0.7 / steps
    bound = ROUNDING if gradient in EXACT else 0.2
    assert of_theta.item() == pytest.approx(factor ** (steps - 1) * 3.0, rel=bound)
    assert of_y0.tolist() == pytest.approx([factor**steps] * 2, rel=bound)


@every_gradient
def test_defect_02_fehlberg2_estimates_its_error(gradient):
    def f_calls(method):
        func, y0 = Counted(SmallNet()), start().requires_grad_()
        sa.odeint(func, y0, T, method=method, gradient=gradient, **LOOSE)
        return func.calls

    # Both are of order 2(1) with 3 and 2 stages; with weights that do not vanish on constants it was 180 times more.
    assert f_calls("fehlberg2") < 3 * f_calls("adaptive_heun")
    assert sum(sa.METHODS["fehlberg2"].b_error) == 0


@every_gradient
def test_defect_03_an_unused_parameter_gets_no_gradient_and_breaks_nothing(gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    weighted_loss(sa.odeint(net, y0, T, gradient=gradient, **LOOSE)).backward()
    assert net.unused.grad is None
    assert all(p.grad is not None and p.grad.any() for p in (y0, *net.parameters()) if p is not net.unused)


@every_gradient
def test_defect_03_a_field_that_does_not_use_its_state_has_gradients(gradient):
    slope, y0 = vector(0.5, -1.0, requires_grad=True), vector(1.0, 2.0, requires_grad=True)
    ys = sa.odeint(lambda t, y: slope * torch.cos(t), y0, T, params=(slope,), gradient=gradient, **TIGHT)
    of_slope, of_y0 = torch.autograd.grad(ys[-1].sum(), [slope, y0])
    # y = y0 + slope sin t
    assert torch.allclose(of_slope, torch.full((2,), math.sin(1.0)).double(), rtol=1e-7)
    assert torch.allclose(of_y0, torch.ones(2).double(), rtol=1e-7)


@every_gradient
def test_defect_04_a_func_that_is_no_module_loses_no_gradient(gradient):
    theta, y0 = scalar(-0.7), vector(1.0, 2.0, requires_grad=True)
    solve = partial(sa.odeint, gradient=gradient, **TIGHT)
    for params in ((), (theta,)):
        (of_theta,) = torch.autograd.grad(solve(lambda t, y: theta * y, y0, T, params=params)[-1].sum(), theta)
        assert of_theta.item() == pytest.approx(3.0 * math.exp(-0.7), rel=1e-6)
    net = SmallNet()
    by_method = gradients(net, solve(net.forward, start(), T))
    agree(by_method, gradients(net, solve(net, start(), T)))


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(-0.7, dtype=torch.float64))

    def forward(self, t, y):
        return self.rate * y


@every_gradient
def test_defect_05_a_data_parallel_replica_loses_no_gradient(gradient):
    """A replica's parameters are plain attributes, computed from the module's, which parameters() does not list."""
    module = Decay()
    replica = module._replicate_for_data_parallel()
    replica.rate = module.rate * 1.0  # stands for the copy to another device, as torch makes it
    assert not list(replica.parameters())
    sa.odeint(replica, vector(1.0, 2.0), T, gradient=gradient, **TIGHT)[-1].sum().backward()
    assert module.rate.grad.item() == pytest.approx(3.0 * math.exp(-0.7), rel=1e-6)


@every_gradient
def test_defect_06_a_retained_graph_can_be_used_again(gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    loss = weighted_loss(sa.odeint(net, y0, T, gradient=gradient, **LOOSE))
    first, second = (torch.autograd.grad(loss, [y0, net.twice], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_gradient
def test_defect_06_gradcheck_runs(gradient):
    net, y0 = SmallNet(), start(batch=1).requires_grad_()

    def ys(y0):
        return sa.odeint(net, y0, T, method="rk4", options={"step_size": 0.1}, gradient=gradient)

    bound = 1e-7 if gradient in EXACT else 1e-3  # of the order of h^4, for an approximation
    assert torch.autograd.gradcheck(ys, (y0,), atol=bound, rtol=bound, fast_mode=True)


@exact_gradients
@pytest.mark.parametrize("victim", ["y0", "parameter", "frozen parameter"])
def test_defect_07_a_change_in_place_between_the_passes_raises(victim, gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    state = y0 * 1.0
    if victim == "frozen parameter":
        net.inner.weight.requires_grad_(False)
    ys = sa.odeint(net, state, T, gradient=gradient, **LOOSE)
    with torch.no_grad():
        (state if victim == "y0" else net.inner.weight).mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


@exact_gradients
def test_defect_08_a_gradient_has_a_gradient(gradient):
    theta, y0 = scalar(0.3), vector(1.0, 2.0)
    ys = sa.odeint(lambda t, y: theta * y, y0, T, params=(theta,), gradient=gradient, **TIGHT)
    (first,) = torch.autograd.grad(ys[-1].sum(), theta, create_graph=True)
    assert first.requires_grad
    (second,) = torch.autograd.grad(first, theta)
    # y = e^(theta t) y0, and at t = 1 every derivative in theta is y itself
    assert second.item() == pytest.approx(3.0 * math.exp(0.3), rel=1e-5)


def test_defect_08_second_derivatives_are_refused_where_there_are_none():
    theta = scalar(0.3)
    ys = sa.odeint(lambda t, y: theta * y, vector(1.0), T, params=(theta,), gradient="continuous", **LOOSE)
    with pytest.raises(sa.UnsupportedCombination, match="create_graph"):
        torch.autograd.grad(ys.sum(), theta, create_graph=True)


@every_gradient
def test_defect_09_times_have_gradients(gradient):
    t = vector(0.1, 0.4, 1.0, requires_grad=True)
    ys = sa.odeint(lambda t, y: -0.7 * y * torch.cos(t), vector(2.0), t, gradient=gradient, **TIGHT)
    weights = vector(0.5, -1.0, 2.0)
    (of_t,) = torch.autograd.grad((weights[:, None] * ys).sum(), t)
    # y(t_j) = 2 exp(0.7 (sin t_0 - sin t_j))
    slopes = 0.7 * torch.cos(t.detach()) * ys[:, 0].detach()
    of_start = 0.7 * math.cos(0.1) * (weights[1:] * ys[1:, 0].detach()).sum()
    assert torch.allclose(of_t, torch.cat([of_start[None], -(weights * slopes)[1:]]), rtol=1e-5)
