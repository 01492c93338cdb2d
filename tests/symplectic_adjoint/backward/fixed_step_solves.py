"""Solves of fixed steps whose backward pass recomputes values."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint import GRADIENTS
from tests.fields import start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
RECOMPUTING = [name for name in GRADIENTS if name != "backprop"]
ROUNDING = 1e-12  # as in test_exactness
recomputing_gradients = pytest.mark.parametrize("gradient", RECOMPUTING)


def solve(func, *, gradient, steps=5, y0=None, t=T, method="rk4", **keywords):
    """Return ys on a fixed grid of this many steps."""
    strategy = GRADIENTS[gradient] if isinstance(gradient, str) else gradient
    method = None if strategy.own_tableau is not None else method
    keywords = {"options": {"step_size": 1.0 / steps}, **keywords}
    y0 = start().requires_grad_() if y0 is None else y0
    return sa.odeint(func, y0, t, method=method, gradient=gradient, **keywords)


def backward(ys, *, retain_graph=False):
    weighted_loss(ys).backward(retain_graph=retain_graph)
