"""Solves of fields with parameters of every kind, and the check that their gradient is that of backprop."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
# Backprop's graph holds every tensor that func uses, known or not: it loses no gradient.
LOSING = [name for name in STANDARD if name != "backprop"]
ROUNDING = 1e-12  # as in test_exactness
APPROXIMATE = 1e-2  # the continuous gradient at these tolerances; a missing or a doubled one would be off by 1
LOOSE = {"rtol": 1e-5, "atol": 1e-5}
FIXED = {"method": "rk4", "options": {"step_size": 0.125}}  # a field with a jump would make adaptive steps tiny
every_gradient = pytest.mark.parametrize("gradient", STANDARD)
losing_gradients = pytest.mark.parametrize("gradient", LOSING)


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.5 * torch.randn(*shape, dtype=torch.float64, generator=generator)).requires_grad_()


def solve(func, y0=None, *, gradient, **keywords):
    return sa.odeint(func, start() if y0 is None else y0, T, gradient=gradient, **{**LOOSE, **keywords})


def assert_as_backprop(solution, inputs, gradient, *, params=()):
    """Compare the gradients of inputs of solution(gradient, params) with backprop's, which needs no params."""

    def grads(name, params):
        return torch.autograd.grad(weighted_loss(solution(name, params)), inputs, allow_unused=True)

    expected = grads("backprop", ())
    assert all(x is None or x.abs().sum() > 0 for x in expected)
    got = grads(gradient, params)
    assert [x is None for x in got] == [x is None for x in expected]
    bound = ROUNDING if gradient in EXACT else APPROXIMATE
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors
