"""What func reads besides tensors is what it was in the forward pass, or the backward pass raises."""

import functools
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import symplectic_adjoint as sa
from tests.gradients import STANDARD

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
ONE_STEP = T[[0, 3]]
CONTROLS = (0.3, -1.0, 2.0)
FIXED = {"method": "rk4"}
every_gradient = pytest.mark.parametrize("gradient", STANDARD)

u = 0.0  # a control that plain functions and modules read as a global


def slope(net, y, u):
    return torch.tanh(net(torch.cat([y, torch.tensor([u], dtype=torch.float64)])))


def make_net():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


class Segments:
    """Several solves with another control each, which share one backward pass. func and steer belong to a subclass."""

    def __init__(self):
        self.net = make_net()
        self.setup()

    def setup(self):
        """Make what func reads."""

    def gradient(self, gradient, t=T):
        y = torch.ones(2, dtype=torch.float64)
        for control in CONTROLS:
            self.steer(control)
            y = sa.odeint(self.func(), y, t, gradient=gradient, params=self.net, **FIXED)[-1]
        return torch.autograd.grad(y.sum(), self.net.weight)[0]


class AClosure(Segments):
    def steer(self, control):
        self.control = control

    def func(self):
        net, control = self.net, self.control
        return lambda t, y: slope(net, y, control)


class AReboundClosure(Segments):
    """One function; its variable is assigned for each solve."""

    def setup(self):
        net, control = self.net, 0.0

        def func(t, y):
            return slope(net, y, control)

        def steer(value):
            nonlocal control
            control = value

        self.steer, self.the_func = steer, func

    def func(self):
        return self.the_func


class AHelpersClosure(AReboundClosure):
    def setup(self):
        net, control = self.net, 0.0

        def helper(y):
            return slope(net, y, control)

        def func(t, y):
            return helper(y)

        def steer(value):
            nonlocal control
            control = value

        self.steer, self.the_func = steer, func


class AGlobal(Segments):
    def setup(self):
        net = self.net
        self.the_func = lambda t, y: slope(net, y, u)

    def steer(self, control):
        globals()["u"] = control

    def func(self):
        return self.the_func


class APartial(Segments):
    def steer(self, control):
        self.control = control

    def func(self):
        return functools.partial(lambda net, t, y, control: slope(net, y, control), self.net, control=self.control)


class AnAttributeOfAModule(Segments):
    class Field(nn.Module):
        control = 0.0

        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return slope(self.net, y, self.control)

    def setup(self):
        self.field = self.Field(self.net)

    def steer(self, control):
        self.field.control = control  # at first the class holds it

    def func(self):
        return self.field


class AModuleInAClosure(AnAttributeOfAModule):
    def func(self):
        return lambda t, y: self.field(t, y)


class ASubmodule(Segments):
    class Field(nn.Module):
        def forward(self, t, y):
            return self.sign * self.active(t, y)

    class Controlled(nn.Module):
        def __init__(self, net, control):
            super().__init__()
            self.net, self.control = net, control

        def forward(self, t, y):
            return slope(self.net, y, self.control)

    def setup(self):
        self.field = self.Field()

    def steer(self, control):
        self.field.active, self.field.sign = self.Controlled(self.net, control), -1 if control < 0 else 1

    def func(self):
        return self.field


COPIED = [
    AClosure, AReboundClosure, AHelpersClosure, AGlobal, APartial, AnAttributeOfAModule, AModuleInAClosure, ASubmodule,
]  # fmt: skip


@every_gradient
@pytest.mark.parametrize("t", [T, ONE_STEP], ids=["steps", "one-step"])
@pytest.mark.parametrize("kind", COPIED, ids=lambda kind: kind.__name__)
def test_each_solve_has_its_own_control(kind, t, gradient):
    expected, got = kind().gradient("backprop", t), kind().gradient(gradient, t)
    bound = 0.2 if gradient == "continuous" else 1e-12  # rounding; large steps, and the wrong control is 100 % off
    assert (got - expected).norm() < bound * expected.norm()


class AList(Segments):
    def setup(self):
        self.held = [0.0]

    def steer(self, control):
        self.held[0] = control

    def func(self):
        net, held = self.net, self.held
        return lambda t, y: slope(net, y, held[0])

    name = r"held\[0\]"


class ADict(AList):
    def setup(self):
        self.held = {"control": 0.0, "unread": 0}

    def steer(self, control):
        self.held["control"] = control

    def func(self):
        net, held = self.net, self.held
        return lambda t, y: slope(net, y, held["control"])

    name = r"held\['control'\]"


class APlainObject(AList):
    def setup(self):
        self.held = types.SimpleNamespace(control=0.0)

    def steer(self, control):
        self.held.control = control

    def func(self):
        net, held = self.net, self.held
        return lambda t, y: slope(net, y, held.control)

    name = r"held\.control"


class ACallableObject(AList):
    class Field:
        def __init__(self, net):
            self.net = net

        def __call__(self, t, y):
            return slope(self.net, y, self.control)

    def setup(self):
        self.field = self.Field(self.net)

    def steer(self, control):
        self.field.control = control

    def func(self):
        return self.field

    name = r"func\.control"


class AListOfAModule(AnAttributeOfAModule):
    def steer(self, control):
        self.field.control = self.field.__dict__.get("control") or [0.0]
        self.field.control[0] = control

    class Field(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return slope(self.net, y, self.control[0])

    name = r"func\.control\[0\]"


class AClass(AList):
    def setup(self):
        self.held = type("Settings", (), {"control": 0.0})

    def steer(self, control):
        self.held.control = control

    def func(self):
        net, held = self.net, self.held
        return lambda t, y: slope(net, y, held.control)

    name = r"held\.control"


class AGlobalOfAModulesForward(AGlobal):
    class Field(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return slope(self.net, y, u)

    def setup(self):
        self.field = self.Field(self.net)

    def func(self):
        return self.field

    name = "global u"


WATCHED = [AList, ADict, APlainObject, ACallableObject, AListOfAModule, AClass, AGlobalOfAModulesForward]


@pytest.mark.parametrize("gradient", [name for name in STANDARD if name != "backprop"])
@pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.__name__)
def test_a_change_of_what_is_not_copied_is_named(kind, gradient):
    one = kind()
    with pytest.raises(sa.FunctionChanged, match=kind.name):
        one.gradient(gradient)
    assert one.net.weight.grad is None
    assert kind().gradient("backprop").abs().sum() > 0


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
