"""What a solve and its gradient leave behind: no object of Python, whatever the number of steps."""

import gc
import sys

import pytest
import torch

from symplectic_adjoint import GRADIENTS, odeint
from tests.fields import SmallNet, start

SOLVES = 2
FEW, MANY = 5, 55


@pytest.fixture(autouse=True)
def _few_objects_to_collect():
    """Leave out the hundreds of thousands of objects that imports made, which make collecting slow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def left_by(solve, steps):
    """Return by how many blocks of memory Python has grown after SOLVES solves of this many steps."""
    solve(steps)  # what is made once does not count
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(SOLVES):
        solve(steps)
    gc.collect()
    return sys.getallocatedblocks() - before


def assert_nothing_is_left_by_steps(solve):
    # One object a step would be 100 blocks each time. The interpreter's caches take a dozen, now and then more.
    for _ in range(3):
        more = left_by(solve, MANY) - left_by(solve, FEW)
        if more < SOLVES * (MANY - FEW) / 2:
            return
    raise AssertionError(f"{more} blocks are left by {SOLVES * (MANY - FEW)} steps")


def fixed(gradient, outputs=2, with_time=False):
    net, y0 = SmallNet(), start()
    t = torch.linspace(0.0, 1.0, outputs, dtype=torch.float64, requires_grad=with_time)

    def solve(steps):
        y = y0.clone().requires_grad_()
        ys = odeint(net, y, t, gradient=gradient, options={"step_size": 1.0 / steps})
        ys.square().mean().backward()
        for p in (*net.parameters(), t):
            p.grad = None

    return solve


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_of_any_gradient_leaves_no_object(gradient):
    assert_nothing_is_left_by_steps(fixed(gradient))


def test_steps_with_dense_outputs_and_time_gradients_leave_no_object():
    assert_nothing_is_left_by_steps(fixed("symplectic", outputs=23, with_time=True))


@pytest.mark.parametrize("method", ["dopri5", "dop853"])  # of one error estimate and of two
def test_steps_of_control_leave_no_object(method):
    net, y0 = SmallNet(), start()

    def solve(steps):
        t = torch.tensor([0.0, 0.01 * steps], dtype=torch.float64)
        options = {"max_step": 0.01, "first_step": 0.01}
        odeint(
            net, y0.clone().requires_grad_(), t, method=method, rtol=1e-3, atol=1e-3, options=options
        ).sum().backward()
        net.zero_grad()

    assert_nothing_is_left_by_steps(solve)


def test_rejected_steps_leave_no_object():
    net, y0 = SmallNet(), start()

    def solve(steps):
        attempts = 0

        def norm(error):
            nonlocal attempts
            attempts += 1
            return torch.tensor(2.0 if attempts % 3 == 0 else 1e-3)  # every third attempt is rejected

        t = torch.tensor([0.0, 0.01 * steps], dtype=torch.float64)
        options = {"norm": norm, "first_step": 0.01, "max_step": 0.01}
        with torch.no_grad():
            odeint(net, y0, t, rtol=1e-3, atol=1e-3, options=options)
        assert attempts > 1.2 * steps

    assert_nothing_is_left_by_steps(solve)
