"""Where a dense output is all that f is evaluated again for, a func that has changed raises FunctionChanged too."""

from array import array

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint import FunctionChanged
from tests.fields import SmallNet, start
from tests.oracle import relative_error

HOLDING = [
    sa.Auto(),
    sa.Auto(1_000_000),  # bytes: all graphs fit
    sa.Symplectic(graphs=float("inf")),
    sa.Symplectic(keep="stages", graphs=float("inf")),
]
METHODS = {
    "dopri5": {"rtol": 1e-4, "atol": 1e-5},
    "dop853": {"rtol": 1e-6, "atol": 1e-7},
    "bosh3": {"rtol": 1e-3, "atol": 1e-3},
    "midpoint": {"options": {"step_size": 0.25, "interp": "cubic"}},
}
OUTPUTS = {
    "many": torch.linspace(0.0, 1.0, 40, dtype=torch.float64),
    "in the first step": torch.tensor([0.0, 0.001, 1.0], dtype=torch.float64),
    "in the last step": torch.tensor([0.0, 0.999, 1.0], dtype=torch.float64),
    "backwards": torch.linspace(1.0, 0.0, 9, dtype=torch.float64),
}


class Scaled(torch.nn.Module):
    """net(t, y) times a number that a solve neither copies nor watches."""

    def __init__(self):
        super().__init__()
        self.net, self.box = SmallNet(), array("d", [1.0])

    def forward(self, t, y):
        return self.net(t, y) * self.box[0]


def backward(ys):
    (ys * torch.arange(1.0, ys.numel() + 1).view_as(ys)).sum().backward()


holding_gradients = pytest.mark.parametrize("gradient", HOLDING, ids=str)
methods = pytest.mark.parametrize("method", METHODS)


@pytest.mark.parametrize("t", OUTPUTS.values(), ids=OUTPUTS)
@methods
@holding_gradients
def test_a_change_between_the_passes_is_found(gradient, method, t):
    if isinstance(gradient, sa.Auto) and "options" in METHODS[method]:
        pytest.skip("fixed steps whose graph fits are backpropagated, which evaluates nothing again")
    func, more = Scaled(), METHODS[method]
    t = t.clone().requires_grad_(method == "dopri5")  # cotangents of times use the value of f
    ys = sa.odeint(func, start(), t, method=method, gradient=gradient, **more)
    func.box[0] = 1.0 + 1e-5
    with pytest.raises(FunctionChanged):
        backward(ys)
    assert all(p.grad is None for p in func.parameters())


@holding_gradients
def test_a_change_before_an_event_is_differentiated_is_found(gradient):
    func, y0 = Scaled(), start()
    t, ys = sa.odeint_event(
        func, y0, torch.tensor(0.0, dtype=torch.float64), event_fn=lambda t, y: t - 0.7, gradient=gradient
    )
    func.box[0] = 0.5
    with pytest.raises(FunctionChanged):
        (ys.sum() + t).backward()


@holding_gradients
def test_an_attribute_that_a_callback_changes_is_found(gradient):
    class Counting(Scaled):
        def callback_accept_step(self, t, y, h):
            self.box[0] = 1.0 + 0.1 * t.item()

    ys = sa.odeint(Counting(), start(), OUTPUTS["many"], gradient=gradient, **METHODS["dopri5"])
    with pytest.raises(FunctionChanged):
        backward(ys)


@methods
@holding_gradients
def test_an_unchanged_func_has_backpropagations_gradient(gradient, method):
    t = OUTPUTS["many"]

    def grads(gradient):
        func, y0 = Scaled().net, start().requires_grad_()
        backward(sa.odeint(func, y0, t, method=method, gradient=gradient, **METHODS[method]))
        return torch.cat([x.grad.flatten() for x in (y0, *func.parameters()) if x.grad is not None])

    # as in the other tests of exactness: the sums differ in order only
    assert relative_error(grads(gradient), grads("backprop")) < 1e-12
