"""How often a step rounds the state and lam: once, however many stages it has."""

import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS

EPS = torch.finfo(torch.float32).eps
RUNGE_KUTTA = [name for name in EXPLICIT_METHODS if name != "leapfrog"]
SWEEPS = ["symplectic", "stages", "aca", "revolve"]
"""The gradients whose sums are ours: baseline and backprop leave them to autograd."""


def grow(t, y):
    """y' = a y with h a = 1.6 ulp: rounded once, y and lam grow by 2 ulp; most terms alone are below half an ulp."""
    return (1.6 * EPS) * y


@pytest.mark.parametrize("method", RUNGE_KUTTA)
def test_the_end_of_a_step_is_rounded_once(method):
    end = odeint(grow, torch.ones(3), torch.tensor([0.0, 1.0]), method=method, options={"step_size": 1.0})[-1]

    # h sum b_i k_i is rounded too, relative to itself: a few eps of 1.6 eps.
    assert (end.double() - (1.0 + 1.6 * EPS)).abs().max() <= 0.5 * EPS


@pytest.mark.parametrize("gradient", SWEEPS)
@pytest.mark.parametrize("method", RUNGE_KUTTA)
def test_lam_is_rounded_once_a_step(method, gradient):
    y0 = torch.ones(3, requires_grad=True)
    end = odeint(grow, y0, torch.tensor([0.0, 1.0]), method=method, options={"step_size": 1.0}, gradient=gradient)[-1]

    (y0_bar,) = torch.autograd.grad(end.sum(), y0)

    assert (y0_bar.double() - (1.0 + 1.6 * EPS)).abs().max() <= 0.5 * EPS
