"""Fields whose calls are hard to repeat, and the check that their gradient is that of backprop."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
RECOMPUTING = [name for name in STANDARD if name != "backprop"]
ROUNDING = 1e-12  # as in test_exactness
APPROXIMATE = 1e-2  # the continuous gradient at these tolerances; with other noise it would be off by 1
LOOSE = {"rtol": 1e-5, "atol": 1e-5}
every_gradient = pytest.mark.parametrize("gradient", STANDARD)
recomputing_gradients = pytest.mark.parametrize("gradient", RECOMPUTING)


class Field(nn.Module):
    """A linear layer, followed by the module under test."""

    def __init__(self, after):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3, bias=False).double()  # a bias before a BatchNorm has no effect
        self.after = after

    def forward(self, t, y):
        return self.after(self.linear(y)) * torch.cos(t)


class Noise(nn.Module):
    """Multiplies by noise drawn at every call, and records the draws."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, y):
        noise = torch.randn(y.shape[-1], dtype=y.dtype)
        self.drawn.append(noise)
        return y * (1.0 + noise)


class Hutchinson(nn.Module):
    """(y, log density)' = (f, -e^T df/dy e) with a probe e drawn at every call."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, t, state):
        y, _ = state
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            probe = torch.randn_like(y)
            dy = self.net(t, y)
            (row,) = torch.autograd.grad(dy, y, probe, create_graph=True)
        return dy, -(row * probe).sum(1)


def noisy(name):
    if name == "hutchinson":
        return Hutchinson()
    return Field({"dropout": nn.Dropout(0.4), "noise": Noise()}[name])


def solve(func, y0=None, *, gradient, seed=None, **keywords):
    """Return ys as one tensor, also for Hutchinson's state."""
    if seed is not None:
        torch.manual_seed(seed)
    y0 = start() if y0 is None else y0
    if not isinstance(func, Hutchinson):
        return sa.odeint(func, y0, T, gradient=gradient, **{**LOOSE, **keywords})
    ys, logs = sa.odeint(func, (y0, y0.new_zeros(len(y0))), T, gradient=gradient, **{**LOOSE, **keywords})
    return torch.cat([ys, logs.unsqueeze(-1)], dim=-1)


def gradients(ys, func, *inputs):
    return torch.autograd.grad(weighted_loss(ys), [*inputs, *func.parameters()], allow_unused=True)


def assert_as_backprop(solution, gradient):
    """Compare the gradient with backprop's; solution(gradient) returns (ys, func, further inputs)."""
    expected = gradients(*solution("backprop"))
    got = gradients(*solution(gradient))
    bound = ROUNDING if gradient in EXACT else APPROXIMATE
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors
    assert any(x is not None and x.any() for x in expected)
