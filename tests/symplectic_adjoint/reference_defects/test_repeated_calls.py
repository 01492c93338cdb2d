"""Defects 12 to 15: the backward pass repeats the forward pass and leaves no trace."""

import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error, replay
from tests.symplectic_adjoint.reference_defects.shared import (
    LOOSE,
    T,
    agree,
    every_gradient,
    exact_gradients,
    gradients,
)


@every_gradient
def test_defect_12_autocast_is_the_same_in_the_backward_pass(gradient):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))

    def grads(gradient, enabled=True):
        # Without autocast's cache of weights, through which backprop would add up all of dL/dtheta in bfloat16.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled, cache_enabled=False):
            ys = sa.odeint(
                lambda t, y: net(y).float(), torch.linspace(-1, 1, 12).reshape(4, 3), T.float(), method="rk4",
                options={"step_size": 0.1}, params=(*net.parameters(),), gradient=gradient,
            )  # fmt: skip
        return torch.cat([bar.flatten() for bar in torch.autograd.grad(weighted_loss(ys), list(net.parameters()))])

    expected = grads("backprop")
    distance = relative_error(grads("backprop", enabled=False), expected)  # of another precision
    # A last bit of float32 may tip the last digit of a bfloat16 cotangent; it does so in few of them.
    assert relative_error(grads(gradient), expected) < (distance / 10 if gradient in EXACT else distance)


class Noisy(nn.Module):
    """Dropout and batch normalisation in a field."""

    def __init__(self, dropout=0.0, normalise=False):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = (nn.Linear(3, 3, dtype=torch.float64) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.normalise = nn.BatchNorm1d(3, dtype=torch.float64) if normalise else nn.Identity()
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.outer(self.dropout(torch.tanh(self.normalise(self.inner(y)))))


@exact_gradients
def test_defect_13_random_numbers_are_the_same_in_the_backward_pass(gradient):
    net = Noisy(dropout=0.5)

    def solve(gradient, seed):
        torch.manual_seed(seed)
        return sa.odeint(net, start(), T, gradient=gradient, **LOOSE)

    ys = solve(gradient, seed=3)
    torch.manual_seed(99)  # something draws between the passes
    got = gradients(net, ys)
    agree(got, gradients(net, solve("backprop", seed=3)))
    assert not torch.equal(solve(gradient, seed=4), ys)


@every_gradient
def test_defect_13_running_statistics_are_updated_in_the_forward_pass_only(gradient):
    def solve(gradient):
        net = Noisy(normalise=True)
        return net, sa.odeint(net, start(), T, gradient=gradient, **LOOSE)

    def statistics(net):
        return torch.cat(
            [net.normalise.running_mean, net.normalise.running_var, net.normalise.num_batches_tracked[None]]
        )

    (net, ys), (plain, _) = solve(gradient), solve("backprop")
    assert torch.equal(statistics(net), statistics(plain)) and net.normalise.num_batches_tracked > 10
    before = net.calls
    ys.sum().backward()
    assert gradient == "backprop" or net.calls > before
    assert torch.equal(statistics(net), statistics(plain))


@every_gradient
def test_defect_14_the_callers_tensors_are_left_as_they_were(gradient):
    net, y0, t = SmallNet(), start(), T.clone()
    before = y0.clone()
    sa.odeint(net, y0, t, gradient=gradient, **LOOSE).sum().backward()
    assert not y0.requires_grad and not t.requires_grad and y0.grad is None
    assert torch.equal(y0, before) and torch.equal(t, T)


@exact_gradients
def test_defect_15_the_choice_of_the_first_step_is_not_differentiated(gradient):
    """Without first_step the first step depends on f; the gradient is still that of the recorded steps."""
    net, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()
    solution = sa.solve(net, y0, t, gradient=gradient, **LOOSE)
    agree(
        gradients(net, solution.ys, y0, t),
        gradients(net, replay(net, sa.METHODS["dopri5"], solution.grid, y0, t), y0, t),
    )
