"""Values that func changes itself or does not read may change between the passes; values that it reads may not."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import symplectic_adjoint as sa
from tests.gradients import STANDARD
from tests.symplectic_adjoint.field.controlled_fields import FIXED, T, every_gradient, make_net, slope


@every_gradient
def test_what_func_changes_itself_is_its_own(gradient):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.nfe, self.seen, self.log = make_net(), 0, {"calls": 0}, []

        def forward(self, t, y):
            self.nfe += 1
            self.seen["calls"] += 1
            self.log.append(float(t))
            return slope(self.net, y, 0.5)

    func = Counting()
    ys = sa.odeint(func, torch.ones(2, dtype=torch.float64), T, gradient=gradient, **FIXED)
    forward = func.nfe
    ys.sum().backward()
    assert func.nfe == func.seen["calls"] == len(func.log) >= forward
    assert (func.nfe > forward) == (gradient != "backprop")


@every_gradient
def test_variables_that_func_assigns_stay_the_callers(gradient):
    net, calls = make_net(), 0

    def func(t, y):
        nonlocal calls
        global u
        calls += 1
        u += 1.0
        return slope(net, y, 0.5)

    globals()["u"] = 0.0
    sa.odeint(func, torch.ones(2, dtype=torch.float64), T, gradient=gradient, **FIXED).sum().backward()
    assert calls == u >= 12


@every_gradient
def test_what_func_does_not_read_is_free_to_change(gradient):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.teacher, self.head = make_net(), make_net(), nn.BatchNorm1d(2).double()
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_buffer("running", torch.zeros((), dtype=torch.float64))
            self.epoch, self.u = 0, torch.zeros(2)

        def field(self, t, y):
            return torch.tanh(self.net(torch.cat([y, y[:, :1]], 1)))

    model = Model()
    ys = sa.odeint(model.field, torch.ones(4, 2, dtype=torch.float64), T, gradient=gradient, **FIXED)
    out = model.head(ys[-1]) + ys[-1]
    with torch.no_grad():
        model.teacher.weight.lerp_(model.net.weight, 0.1)
        model.steps += 1
        model.running += 0.5
        model.u.add_(1.0)
    model.epoch += 1
    out.sum().backward()
    assert model.net.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("gradient", [name for name in STANDARD if name != "backprop"])
@pytest.mark.parametrize("closure", [False, True], ids=["module", "closure"])
def test_values_that_autograd_does_not_see_assigned_are_noticed(gradient, closure):
    def assign(net):
        net.weight.data = net.weight.data * 2.0

    def from_vector(net):
        vector_to_parameters(parameters_to_vector(net.parameters()) * 2.0, net.parameters())

    for change in (assign, from_vector):
        net = make_net()
        field = nn.Sequential(net, nn.Tanh()) if closure else net
        pad = torch.zeros(1, dtype=torch.float64)
        ys = sa.odeint(
            lambda t, y, field=field, pad=pad: field(torch.cat([y, pad])),
            torch.ones(2, dtype=torch.float64),
            T,
            gradient=gradient,
            **FIXED,
        )
        change(net)
        with pytest.raises(sa.FunctionChanged, match=r"weight|bias"):
            ys.sum().backward()
        assert net.weight.grad is None


@every_gradient
def test_a_python_module_that_func_reads_is_watched(gradient, monkeypatch):
    settings = types.ModuleType("settings_of_this_test")
    settings.control = 0.5
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    net = make_net()
    y0 = torch.ones(2, dtype=torch.float64)
    ys = sa.odeint(lambda t, y: slope(net, y, settings.control), y0, T, gradient=gradient, **FIXED)
    settings.control = -1.0
    if gradient == "backprop":
        ys.sum().backward()
    else:
        with pytest.raises(sa.FunctionChanged, match=r"settings\.control"):
            ys.sum().backward()


class Flagged(nn.Module):
    """Another function once a flag is in its set."""

    def __init__(self, flags):
        super().__init__()
        self.net, self.flags = make_net(), flags

    def forward(self, t, y):
        return slope(self.net, y, 0.5 if 9 in self.flags else 1.0)


@every_gradient
def test_an_entry_that_moves_in_a_set_is_no_change(gradient):
    def gradients(change):
        func = Flagged({9})
        ys = sa.odeint(func, torch.ones(2, dtype=torch.float64), T, gradient=gradient, **FIXED)
        change(func.flags)
        ys.sum().backward()
        return [p.grad for p in func.parameters()]

    def change(flags):
        flags.add(0)
        assert next(iter(flags)) == 0  # where 9 was

    assert all(map(torch.equal, gradients(change), gradients(lambda flags: None)))


@pytest.mark.parametrize("entry", [9, "a", 2.0, ("a", 1), None])
@every_gradient
def test_an_entry_that_a_set_has_lost_is_a_change(gradient, entry):
    func = Flagged({9, entry})
    ys = sa.odeint(func, torch.ones(2, dtype=torch.float64), T, gradient=gradient, **FIXED)
    func.flags.discard(9)
    if gradient == "backprop":
        ys.sum().backward()
    else:
        with pytest.raises(sa.FunctionChanged):
            ys.sum().backward()
