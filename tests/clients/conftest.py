"""The solvers that every situation is run with: each gradient, and plain autograd to compare it with."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torchdiffeq

import symplectic_adjoint as sa
from tests.gradients import EXACT
from tests.oracle import relative_error

ROUNDING = 1e-12  # as in test_exactness
# An error of the second solve's tolerance is a few 1e-7 of these gradients; a missing or a stale part is above 1e-2.
APPROXIMATE = 1e-4


class Solvers(NamedTuple):
    """Two odeint of one signature, (func, y0, t), and how far their gradients may differ."""

    ours: Callable
    truth: Callable
    bound: float

    def check(self, train):
        """Compare what train(odeint) returns, a dict of gradients and results by name."""
        got, expected = train(self.ours), train(self.truth)
        assert list(got) == list(expected)
        assert any(x is not None and x.any() for x in expected.values())
        errors = {name: relative_error(got[name], expected[name]) for name in got}
        assert max(errors.values()) < self.bound, errors


def on_the_grid_of_t(gradient):
    """Compare with torchdiffeq's odeint, whose "rk4" is the 3/8 rule: plain autograd through the same steps."""
    return Solvers(
        partial(sa.odeint, gradient=gradient, method="rk38"), partial(torchdiffeq.odeint, method="rk4"), ROUNDING
    )


def adaptive(gradient, tolerance, bound=ROUNDING):
    """Compare with backprop: torchdiffeq's odeint also differentiates its first step size, so it has other steps."""
    solve = partial(sa.odeint, rtol=tolerance, atol=tolerance)
    return Solvers(partial(solve, gradient=gradient), partial(solve, gradient="backprop"), bound)


EXACT_CASES = [
    *(pytest.param(on_the_grid_of_t(name), id=name) for name in EXACT),
    pytest.param(adaptive("symplectic", 1e-5), id="symplectic-adaptive"),
]


@pytest.fixture(params=[*EXACT_CASES, pytest.param(adaptive("continuous", 1e-7, APPROXIMATE), id="continuous")])
def solvers(request):
    """Return every gradient, the default one with adaptive steps too, beside the truth."""
    return request.param


@pytest.fixture(params=EXACT_CASES)
def exact_solvers(request):
    """Return the exact gradients only, for second derivatives and steps so coarse that a second solve differs."""
    return request.param


@pytest.fixture(params=[case for case in EXACT_CASES if case.id != "symplectic-adaptive"])
def grid_solvers(request):
    """Return the exact gradients on the grid of t: for fields that are no function of t and y."""
    return request.param


@pytest.fixture(params=EXACT)
def gradient(request):
    return request.param


@pytest.fixture(autouse=True)
def _in_float64():
    """Build every model in float64, in which rounding is told from a wrong gradient."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
