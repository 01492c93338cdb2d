"""Automatic mixed precision: autocast around a whole training step, with and without a gradient scaler."""

from functools import partial

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from tests.gradients import STANDARD

T = torch.linspace(0.0, 1.0, 5)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))

    def field(self, t, y):
        return self.net(y)


def gradients(odeint, *, autocast=None, dtype=torch.float32, scale=1.0):
    """Return the gradient of a mean loss in float64, computed at a loss scale and unscaled."""
    model = Model().to(dtype)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = odeint(model.field, x, T.to(dtype))[-1].square().mean()
    (loss * scale).backward()
    return torch.cat([p.grad.double().flatten() / scale for p in model.parameters()])


autograd = partial(torchdiffeq.odeint, method="rk4")  # the 3/8 rule


def error(gradient):
    """Return the distance from the gradient in float64, relative to it."""
    truth = gradients(autograd, dtype=torch.float64)
    return ((gradient - truth).norm() / truth.norm()).item()


# Two sums of the same rounded products in another order: either may be the nearer one.
AS_NEAR = 2.0


@pytest.fixture(autouse=True)
def _in_float64():
    """Override the folder's fixture: the models of this situation are in float32."""


@pytest.fixture(params=STANDARD)
def ours(request):
    return partial(sa.odeint, gradient=request.param, method="rk38")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_is_as_near_to_float64_as_autograds_own(ours, dtype):
    if ours.keywords["gradient"] == "continuous":  # four steps of its second solve are another problem
        ours = partial(sa.odeint, gradient="continuous", rtol=1e-3, atol=1e-3)
    assert error(gradients(ours, autocast=dtype)) < AS_NEAR * error(gradients(autograd, autocast=dtype))


@pytest.mark.parametrize("scale", [2.0**-24, 2.0**20])
def test_float16_at_the_loss_scales_of_a_gradient_scaler(ours, scale):
    """In float16 a small cotangent vanishes and a large one overflows, unless each product is scaled."""
    got = gradients(ours, autocast=torch.float16, scale=scale)
    if ours.keywords["gradient"] == "backprop":  # whose products are autograd's
        expected = gradients(autograd, autocast=torch.float16, scale=scale)
        assert got.isfinite().all() == expected.isfinite().all()
    elif ours.keywords["gradient"] != "continuous":
        assert error(got) < AS_NEAR * error(gradients(autograd, autocast=torch.float16))


def test_adaptive_steps_under_autocast(ours):
    adaptive = partial(ours, method="dopri5", rtol=1e-2, atol=1e-2)
    # Two digits of bfloat16; the error of the steps is below 1e-3.
    assert error(gradients(adaptive, autocast=torch.bfloat16)) < 0.02


def test_the_state_keeps_its_precision(ours):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(Model().field, torch.randn(4, 3), T).dtype == torch.float32
