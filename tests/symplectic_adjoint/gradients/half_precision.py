"""Solves whose f computes in bfloat16 or float16, and their gradients in float64."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.oracle import relative_error, replay

HALVES = [torch.bfloat16, torch.float16]
T = torch.tensor([0.0, 0.4, 1.0])
FIXED = {"step_size": 0.1}
every_gradient = pytest.mark.parametrize("gradient", list(sa.GRADIENTS))
recomputing = pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "backprop"])
every_half = pytest.mark.parametrize("dtype", HALVES, ids=["bfloat16", "float16"])


class Net(nn.Module):
    """Two layers, whose last operation is autocast, so that its value is in half precision."""

    def __init__(self, within=None):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(4, 16), nn.Linear(16, 4)
        self.within = within

    def forward(self, t, y):
        autocast = nullcontext() if self.within is None else torch.autocast("cpu", dtype=self.within)
        with autocast:
            return self.outer(torch.tanh(self.inner(y)) * torch.cos(t))


def start(dtype=torch.float32):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to(dtype)


def loss_of(ys):
    return (ys.square() * torch.linspace(0.5, 1.5, ys.numel()).reshape(ys.shape).to(ys)).sum()


def autocast(dtype, **settings):
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype, **settings)


def solution(gradient, dtype, *, within=False, cache=True, method=None, options=FIXED, **keywords):
    """Return (solution, [y0, t, parameters]) of a solve under autocast, around it or inside func."""
    func, y0, t = Net(dtype if within else None), start().requires_grad_(), T.clone().requires_grad_()
    method = None if gradient == "mali" else method or "rk4"
    with autocast(None if within else dtype, cache_enabled=cache):
        found = sa.solve(func, y0, t, gradient=gradient, method=method, options=options, **keywords)
    return found, [y0, t, *func.parameters()]


def gradient_of(found, leaves, *, scale=1.0):
    """Return the gradient of the loss times scale, divided by scale in float64."""
    bars = torch.autograd.grad(loss_of(found.ys) * scale, leaves, retain_graph=True)
    return [bar.double() / scale for bar in bars]


def truth(found, gradient, method="rk4"):
    """Return the gradient of the recorded steps with f in float64, by autograd."""
    func, y0, t = Net().double(), start(torch.float64).requires_grad_(), T.double().requires_grad_()
    pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}.get(gradient)
    tableau = sa.GRADIENTS[gradient].own_tableau or sa.METHODS[method]
    ys = replay(func, tableau, found.grid, y0, t, pair)
    return list(torch.autograd.grad(loss_of(ys), [y0, t, *func.parameters()]))


def errors(bars, exact):
    return [relative_error(a, b) for a, b in zip(bars, exact, strict=True)]


# Each of some ten rounded operations of f and its VJP is off by up to eps / 2, independently, and averaged over steps.
LEVEL = {dtype: 2 * torch.finfo(dtype).eps for dtype in HALVES}
