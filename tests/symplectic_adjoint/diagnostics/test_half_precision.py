"""check_gradient and compare_gradients where f computes in half precision: errors are judged at its level."""

from contextlib import nullcontext

import pytest
import torch

import symplectic_adjoint as sa
from tests.gradients import EXACT, OWN_STEPS
from tests.symplectic_adjoint.gradients.half_precision import FIXED, Net, T, autocast, every_half, start

HOW = ["state", "autocast", "autocast-inside-func"]


def problem(how, dtype):
    """Return (func, y0, the context of the solve)."""
    if how == "state":
        return Net().to(dtype), start(dtype), nullcontext()
    return (
        Net(dtype if how == "autocast-inside-func" else None),
        start(),
        autocast(dtype if how == "autocast" else None),
    )


@every_half
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("gradient", [*EXACT, *OWN_STEPS])
def test_a_gradient_as_near_as_autograds_own_passes(gradient, how, dtype):
    func, y0, context = problem(how, dtype)
    method = None if gradient in OWN_STEPS else "rk4"
    with context:
        check = sa.check_gradient(func, y0, T, gradient=gradient, method=method, options=FIXED)
    assert check.ok, str(check)
    assert check.tolerance < 0.1


@every_half
@pytest.mark.parametrize("how", HOW)
def test_a_gradient_far_from_autograds_own_does_not(how, dtype):
    """That of a second solve, in one step of order 1."""
    func, y0, context = problem(how, dtype)
    with context:
        check = sa.check_gradient(
            func, 3 * y0, torch.tensor([0.0, 2.0]), gradient="continuous", method="euler", options={"step_size": 2.0}
        )
    assert not check.ok
    assert max(check.errors.values()) > check.tolerance


@every_half
@pytest.mark.parametrize("how", HOW)
def test_what_func_reads_may_be_rebound_or_not_as_ever(how, dtype):
    net, y0, context = problem(how, dtype)
    gain = 1.0
    content = [1.0]

    def rebound(t, y):
        nonlocal gain
        gain += 0.5  # a variable of func's own, that its value does not depend on
        return net(t, y)

    def drifting(t, y):
        content[0] += 0.5
        return content[0] * net(t, y)

    with context:
        assert sa.check_gradient(rebound, y0, T, method="rk4", options=FIXED).ok
        assert not sa.check_gradient(drifting, y0, T, method="rk4", options=FIXED).ok
