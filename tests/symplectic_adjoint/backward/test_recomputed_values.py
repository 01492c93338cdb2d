"""A backward pass that finds another func than the forward pass had raises FunctionChanged."""

import random
from array import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import GRADIENTS, FunctionChanged, LostGradient
from symplectic_adjoint.backward.recomputed_values import RecomputedValues
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import OWN_STEPS
from tests.oracle import relative_error
from tests.symplectic_adjoint.backward.fixed_step_solves import (
    RECOMPUTING,
    ROUNDING,
    T,
    backward,
    recomputing_gradients,
    solve,
)

FURTHER = [
    sa.Symplectic(graphs=3),
    sa.Symplectic(keep="stages", offload="disk"),
    sa.Revolve(1),
    sa.Revolve(2, offload="disk"),
    sa.Reversible(0.9),
    sa.Mali(0.9),
]


class Scaled:
    """net(t, y) times a number in a container that a solve neither copies nor watches."""

    def __init__(self, kind):
        self.net = SmallNet()
        self.box = {"numpy": np.ones(1), "array": array("d", [1.0])}[kind]

    @property
    def u(self):
        return float(self.box[0])

    @u.setter
    def u(self, value):
        self.box[0] = value

    def __call__(self, t, y):
        return self.net(t, y) * self.u


KINDS = ["numpy", "array"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [T, T[[0, 2]]], ids=["outputs", "end"])
@pytest.mark.parametrize("steps", [1, 7])
@recomputing_gradients
def test_a_value_rebound_between_the_passes_is_found(gradient, steps, t, kind):
    func = Scaled(kind)
    params = tuple(func.net.parameters())
    ys = solve(func, gradient=gradient, steps=steps, t=t, params=params)
    func.u = 1.0 + 1e-6
    with pytest.raises(FunctionChanged, match="Something that it reads has changed") as caught:
        backward(ys)
    assert T[0] <= caught.value.t <= T[-1] and caught.value.difference > 0.0
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("gradient", FURTHER, ids=str)
@pytest.mark.parametrize("steps", [1, 9])
def test_a_value_rebound_between_the_passes_is_found_by_every_option(gradient, steps):
    func = Scaled("array")
    ys = solve(func, gradient=gradient, steps=steps, params=tuple(func.net.parameters()))
    func.u = -1.0
    with pytest.raises(FunctionChanged):
        backward(ys)


@pytest.mark.parametrize("budget", [4000, 12000])  # a few states, and a few graphs
def test_a_value_rebound_between_the_passes_is_found_within_a_budget(budget):
    func = Scaled("array")
    ys = solve(func, gradient=sa.Auto(budget), steps=40, params=tuple(func.net.parameters()))
    func.u = 2.0
    with pytest.raises(FunctionChanged):
        backward(ys)


@recomputing_gradients
def test_solves_that_share_a_func_and_a_backward_pass_are_told_apart(gradient):
    func, y = Scaled("array"), start()
    params = tuple(func.net.parameters())
    for u in (0.3, -1.0, 2.0):
        func.u = u
        y = solve(func, gradient=gradient, steps=1, y0=y, t=T[[0, 2]], params=params)[-1]
    with pytest.raises(FunctionChanged):
        y.sum().backward()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), random.random], ids=["numpy", "random"])
@recomputing_gradients
def test_draws_that_are_not_torchs_are_refused(gradient, draw):
    net = SmallNet()
    ys = solve(lambda t, y: net(t, y) * (1.0 + 0.01 * draw()), gradient=gradient, params=tuple(net.parameters()))
    with pytest.raises((FunctionChanged, sa.ReversalError), match=r"It returns other values each time|reversing"):
        backward(ys)


class Memo(nn.Module):
    """Keeps what it computed from a parameter at each time."""

    def __init__(self):
        super().__init__()
        self.net, self.embedding, self.kept = SmallNet(), nn.Linear(1, 3).double(), {}

    def forward(self, t, y):
        if float(t) not in self.kept:
            self.kept[float(t)] = self.embedding(t.reshape(1)).sin()
        return self.net(t, y) * self.kept[float(t)]


@pytest.mark.parametrize("steps", [1, 4])
@recomputing_gradients
def test_a_value_kept_from_a_parameter_in_a_later_call_is_found(gradient, steps):
    ys = solve(Memo(), gradient=gradient, steps=steps)
    with pytest.raises(LostGradient, match=r"a value that it had computed .*and kept"):
        backward(ys)


@recomputing_gradients
def test_a_mode_switched_behind_a_plain_object_is_that_of_the_solve(gradient):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallNet()

        def forward(self, t, y):
            return self.net(t, y) if self.training else self.net(t, y).tanh()

    def gradient_of(switched):
        holder = SimpleNamespace(net=Net())
        ys = solve(lambda t, y: holder.net(t, y), gradient=gradient)
        holder.net.train(not switched)
        return torch.autograd.grad(weighted_loss(ys), holder.net.net.twice)[0]

    assert torch.equal(gradient_of(True), gradient_of(False))


@pytest.mark.parametrize("gradient", [name for name in RECOMPUTING if name not in (*OWN_STEPS, "continuous")])
def test_a_change_that_only_the_last_step_sees_is_found(gradient):
    net, box = SmallNet(), array("d", [1.0])
    ys = solve(
        lambda t, y: net(t, y) * (box[0] if t > 0.95 else 1.0),
        gradient=gradient,
        steps=10,
        params=tuple(net.parameters()),
    )
    box[0] = 1.1
    with pytest.raises(FunctionChanged) as caught:
        backward(ys)
    assert caught.value.t >= 0.9


@pytest.mark.parametrize("assign", ["data", "vector", "set_data"])
@pytest.mark.parametrize("steps", [1, 5])
@recomputing_gradients
def test_data_assigned_to_a_parameter_is_found(gradient, steps, assign):
    net = SmallNet()
    ys = solve(net, gradient=gradient, steps=steps)
    if assign == "vector":
        nn.utils.vector_to_parameters(1.01 * nn.utils.parameters_to_vector(net.parameters()), net.parameters())
    else:
        p = net.inner.weight
        new = p.detach() * 1.01
        p.data = new
    with pytest.raises(FunctionChanged):
        backward(ys)


def gradients(net, ys):
    return torch.autograd.grad(weighted_loss(ys), (*net.inner.parameters(), net.twice))


@recomputing_gradients
def test_data_swapped_out_and_back_is_no_change(gradient):
    """Averaged weights for an evaluation: the old values come back, at another address."""
    net = SmallNet()
    expected = gradients(net, solve(net, gradient=gradient))
    ys = solve(net, gradient=gradient)
    for p in net.parameters():
        kept = p.detach().clone()
        p.data = 1.01 * kept
        p.data = kept
    assert all(torch.equal(got, x) for got, x in zip(gradients(net, ys), expected, strict=True))


@pytest.mark.parametrize("change", ["values", "dtype", "shape"])
@recomputing_gradients
def test_other_data_is_found_by_the_data_alone(gradient, change):
    """Not by what func computes from it, nor by its address, at which memory that was freed may be used again."""
    net = SmallNet()
    ys = solve(net, gradient=gradient)
    weight = net.inner.weight
    rounded = torch.nextafter(weight, torch.zeros(()))  # less than the comparison of values of func can tell
    new = {"values": rounded, "dtype": weight.float(), "shape": weight[:1]}[change].detach().clone()
    weight.data = torch.empty(0)
    weight.data = new
    with pytest.raises(FunctionChanged, match=r"func\.inner\.weight was changed.*\.data was assigned"):
        backward(ys)


@pytest.mark.parametrize("steps", [1, 5])
@recomputing_gradients
def test_a_change_before_a_second_backward_pass_is_found(gradient, steps):
    func = Scaled("array")
    ys = solve(func, gradient=gradient, steps=steps, params=tuple(func.net.parameters()))
    first, second = (torch.autograd.grad(weighted_loss(ys), func.net.twice, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second) or relative_error(first, second) < ROUNDING
    func.u = 1.5
    with pytest.raises(FunctionChanged):
        torch.autograd.grad(weighted_loss(ys), func.net.twice)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("gradient", [name for name in RECOMPUTING if GRADIENTS[name].exact])
def test_a_change_before_a_double_backward_pass_is_found(gradient, steps):
    func, y0 = Scaled("array"), start().requires_grad_()
    ys = solve(func, gradient=gradient, steps=steps, y0=y0, params=tuple(func.net.parameters()))
    func.u = 1.5
    with pytest.raises(FunctionChanged):
        torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("when", [None, 0.02, 0.5, 0.985])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca", "revolve", "baseline"])
def test_differences_are_selected_on_the_device(gradient, when, dtype, monkeypatch):
    """As on CUDA, where equal values cannot be told at once: of many differences the host reads the largest."""
    monkeypatch.setattr(RecomputedValues, "_surely_equal", lambda self, a, b: False)
    net, box = SmallNet().to(dtype), array("d", [1.0])

    def func(t, y):
        return net(t, y) * (box[0] if when is not None and abs(float(t) - when) < 0.004 else 1.0)

    ys = solve(func, gradient=gradient, steps=150, t=T[[0, 2]], y0=start().to(dtype), params=tuple(net.parameters()))
    box[0] = 1.1
    if when is None:
        backward(ys)
        return
    with pytest.raises(FunctionChanged) as caught:
        backward(ys)
    if gradient not in ("baseline", "revolve"):  # they notice it where the next kept state is reached
        assert caught.value.t == pytest.approx(when, abs=0.02)


@pytest.mark.parametrize("compile_", [False, True])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", "revolve"])
def test_parameters_changed_under_compiled_code_are_found(gradient, compile_):
    if compile_ and torch.__version__ < "2.13":
        pytest.skip("compile=True needs torch 2.13")
    net = SmallNet()
    for change in (False, True):
        ys = solve(net, gradient=gradient, method="dopri5", compile=compile_)
        if not change:
            backward(ys)
            continue
        net.outer.bias.data = net.outer.bias.detach() + 1e-6
        with pytest.raises(FunctionChanged):
            backward(ys)
    if compile_:
        torch._dynamo.reset()


@recomputing_gradients
def test_a_value_that_became_nan_is_found(gradient):
    func = Scaled("array")
    ys = solve(func, gradient=gradient, params=tuple(func.net.parameters()))
    func.u = float("nan")
    with pytest.raises(FunctionChanged):
        backward(ys)


@recomputing_gradients
def test_check_false_takes_func_as_it_is_now(gradient):
    strategy = replace(GRADIENTS[gradient], check=False)
    assert "check=False" in str(strategy) and strategy != GRADIENTS[gradient]
    func = Scaled("array")
    ys = solve(func, gradient=strategy, params=tuple(func.net.parameters()))
    func.u = 1.0 + 1e-11  # little enough for a reversal to come back
    backward(ys)
    assert func.net.twice.grad is not None


def test_check_gradient_reports_a_func_that_changes():
    net = SmallNet()
    report = sa.check_gradient(
        lambda t, y: net(t, y) * (1.0 + 0.01 * random.random()), start(), T, method="rk4", params=net.parameters()
    )
    assert not report.ok and isinstance(report.changed, FunctionChanged)
    assert "changed: func, evaluated again" in str(report)
    assert sa.check_gradient(net, start(), T, method="rk4").changed is None
