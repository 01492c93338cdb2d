"""The replaced odeint_adjoint gives zeros to parameters that func does not use, as torchdiffeq's does."""

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.replacement import functions as ours
from tests.fields import SmallNet, start
from tests.gradients import STANDARD

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)


def gradients(odeint_adjoint, y0, **keywords):
    net = SmallNet()
    ys = odeint_adjoint(net, y0, T, method="midpoint", **keywords)
    ys = ys if isinstance(ys, torch.Tensor) else ys[0]
    ys[-1].sum().backward()
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("gradient", STANDARD)
def test_unused_parameters_get_zeros_and_used_ones_their_gradient(gradient):
    found, expected = gradients(ours.odeint_adjoint, start(), gradient=gradient), gradients(sa.odeint, start())
    assert expected.pop("unused") is None
    assert torch.equal(found.pop("unused"), torch.zeros(2, dtype=torch.float64))
    loose = {"rtol": 0.3, "atol": 0.3} if gradient == "continuous" else {"rtol": 1e-12, "atol": 1e-12}  # three steps
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **loose)


class Pair(nn.Module):
    """A state of two parts, and a parameter that is given but not used."""

    def __init__(self):
        super().__init__()
        self.rate, self.spare = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.ones(3))

    def forward(self, t, y):
        return -self.rate * y[1], y[0]


@pytest.mark.parametrize("y0_needs_gradient", [False, True])
def test_a_pair_as_in_torchdiffeq(y0_needs_gradient):
    found = []
    for odeint_adjoint in (ours.odeint_adjoint, torchdiffeq.odeint_adjoint):
        field, y0 = Pair(), (torch.ones(2).requires_grad_(y0_needs_gradient), torch.ones(2))
        ys = odeint_adjoint(field, y0, T, rtol=1e-6, atol=1e-6)
        ys[1][-1].sum().backward()
        found.append([field.rate.grad, field.spare.grad, y0[0].grad])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)  # two gradients of solves at 1e-6, in float32


def test_only_those_of_adjoint_params_if_they_are_given():
    net = SmallNet()
    given = (p for p in net.inner.parameters())
    ours.odeint_adjoint(net, start(), T, method="midpoint", adjoint_params=given)[-1].sum().backward()
    assert net.unused.grad is None and net.inner.weight.grad.any()


def test_frozen_parameters_and_solves_without_gradients_stay_so():
    net = SmallNet().requires_grad_(False)
    assert not ours.odeint_adjoint(net, start(), T, method="midpoint").requires_grad
    with torch.no_grad():
        assert not ours.odeint_adjoint(SmallNet(), start(), T, method="midpoint").requires_grad


def test_callbacks_of_accepted_fixed_steps_are_warned_of_as_in_torchdiffeq():
    for odeint in (torchdiffeq.odeint, ours.odeint):
        field, seen = SmallNet(), []
        field.callback_accept_step = lambda t0, y0, dt, seen=seen: seen.append(dt)
        with pytest.warns(UserWarning, match="callback_accept_step"):
            odeint(field, start(), T, method="euler")
    assert len(seen) == 3  # ours calls it, too
    with pytest.warns(UserWarning, match="no effect|support") as none:
        ours.odeint(field, start(), T, method="dopri5", options={"max_iters": 3})
    assert not any("callback" in str(warning.message) for warning in none)
