"""What func reads besides tensors is what it was in the forward pass, or the backward pass raises."""

import functools
import types

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import symplectic_adjoint as sa
from tests.gradients import STANDARD
from tests.symplectic_adjoint.field.controlled_fields import FIXED, T, every_gradient, make_net, slope

ONE_STEP = T[[0, 3]]
CONTROLS = (0.3, -1.0, 2.0)

u = 0.0  # a control that plain functions and modules read as a global


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
        control = CONTROLS[0]

        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return slope(self.net, y, self.control)

    def setup(self):
        self.field = self.Field(self.net)

    def steer(self, control):
        if control != self.field.control:  # in the first solve the class holds it
            self.field.control = control

    def func(self):
        return self.field


class AModuleInAClosure(AnAttributeOfAModule):
    def func(self):
        return lambda t, y: self.field(t, y)


class AnAttributeOfAParametrizedModule(AnAttributeOfAModule):
    """Its class is made by torch, as by weight_norm and spectral_norm; the base holds the control."""

    def setup(self):
        super().setup()
        self.field.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        parametrize.register_parametrization(self.field, "scale", nn.Identity())


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
    AClosure, AReboundClosure, AHelpersClosure, AGlobal, APartial, AnAttributeOfAModule, AModuleInAClosure,
    AnAttributeOfAParametrizedModule, ASubmodule,
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


class AGlobalOfAParametrizedModule(AGlobalOfAModulesForward):
    def setup(self):
        super().setup()
        self.field.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        parametrize.register_parametrization(self.field, "scale", nn.Identity())


WATCHED = [
    AList, ADict, APlainObject, ACallableObject, AListOfAModule, AClass, AGlobalOfAModulesForward,
    AGlobalOfAParametrizedModule,
]  # fmt: skip


@pytest.mark.parametrize("gradient", [name for name in STANDARD if name != "backprop"])
@pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.__name__)
def test_a_change_of_what_is_not_copied_is_named(kind, gradient):
    one = kind()
    with pytest.raises(sa.FunctionChanged, match=kind.name):
        one.gradient(gradient)
    assert one.net.weight.grad is None
    assert kind().gradient("backprop").abs().sum() > 0
