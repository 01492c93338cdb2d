"""Solves of one step in a row, as in an ODE-RNN: each holds its start and its outputs, and no stage."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, Revolve, Symplectic
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import Counted, SmallNet, start

SOLVES, WIDTH, BATCH = 30, 32, 64
STATE = 8 * WIDTH * BATCH
T = torch.tensor([0.0, 0.1], dtype=torch.float64)
ONE_STEP = {name: {"method": name, "options": {"step_size": 0.1}} for name in ("midpoint", "rk4", "dopri5", "dop853")}


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, WIDTH)).double()

    def forward(self, t, y):
        return self.net(y)


def kept_bytes(gradient, **how):
    """Return the bytes that one forward pass leaves, with a cell after each solve that keeps its input alive."""
    field, kept = Field(), {}

    def forward():
        h = torch.ones(BATCH, WIDTH, dtype=torch.float64, requires_grad=True)
        for _ in range(SOLVES):
            h = sa.odeint(field, h, T, gradient=gradient, **how)[-1].sin()  # sin keeps its input, and that is ys
        kept["h"] = h

    forward()
    kept.clear()
    (traffic,) = sa.watch_memory("cpu", forward)
    return traffic.left_bytes


@pytest.mark.parametrize("method", ONE_STEP)
@pytest.mark.parametrize("gradient", ["symplectic", "revolve", Symplectic(offload="cpu"), Revolve(1)], ids=str)
def test_each_holds_its_start_and_its_outputs(gradient, method):
    # ys has two rows, and the start is the result of the cell before. The last result is no start of a later solve.
    states = 3 * SOLVES + 1
    assert kept_bytes(gradient, **ONE_STEP[method]) == pytest.approx(states * STATE, abs=64 * SOLVES)  # times


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("gradient", ["symplectic", "revolve"])
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_its_stages_are_recomputed_and_counted(method, gradient, adaptive):
    func, y0 = Counted(SmallNet()), start().requires_grad_()
    t = torch.tensor([0.0, 1e-3], dtype=torch.float64, requires_grad=True)
    options = {} if adaptive and METHODS[method].adaptive else {"step_size": 1e-3}
    solution = sa.solve(func, y0, t, method=method, rtol=1e-2, atol=1e-2, options=options, gradient=gradient)
    assert solution.stats.accepted == 1
    inputs = [y0, t, *(x for x in func.parameters() if x.requires_grad)]
    before, s = func.calls, METHODS[method].stages
    for calls in (2 * s - 1, 2 * (2 * s - 1)):  # the second backward pass as the first
        found = torch.autograd.grad(solution.ys.square().sum(), inputs, retain_graph=True, materialize_grads=True)
        assert func.calls - before == solution.stats.f_calls_backward == calls
    ys = sa.odeint(func.func, y0, t, method=method, rtol=1e-2, atol=1e-2, options=options, gradient="backprop")
    expected = torch.autograd.grad(ys.square().sum(), inputs, materialize_grads=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # rounding of one step


@pytest.mark.parametrize("gradient", ["symplectic", "revolve", Symplectic(graphs=2), Symplectic(graphs=100)], ids=str)
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_outputs_inside_the_step_have_exact_gradients(method, gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 0.02, 0.05, 0.1], dtype=torch.float64, requires_grad=True)
    how = {"method": method, "options": {"step_size": 0.1}}
    inputs = [y0, t, *(x for x in func.parameters() if x.requires_grad)]
    expected = torch.autograd.grad(
        sa.odeint(func, y0, t, gradient="backprop", **how).square().sum(), inputs, materialize_grads=True
    )
    ys = sa.odeint(func, y0, t, gradient=gradient, **how)
    for _ in range(2):
        found = torch.autograd.grad(ys.square().sum(), inputs, retain_graph=True, materialize_grads=True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # rounding of one step
