"""Values beside those that func reads may be anything: weak proxies to nothing, lazy objects, values that raise."""

import functools
import types
import weakref
from itertools import product

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.gradients import taking_turns
from tests.symplectic_adjoint.field.parameter_gradients import assert_as_backprop, every_gradient, leaf, solve

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)


class Owner:
    """Any object."""

    def method(self):
        """Do nothing."""


def gone():
    return weakref.proxy(Owner())


def gone_callable():
    return weakref.proxy(nn.Tanh())


class Raising:
    """Raises at every look at it."""

    def __getattribute__(self, name):
        raise RuntimeError(f"{name} was read")


class RaisingClass:
    @property
    def __class__(self):
        raise RuntimeError("__class__ was read")


class RaisingSlots:
    __slots__ = ("unset",)

    def __getattr__(self, name):
        raise RuntimeError(f"{name} was read")


class RaisingProperty:
    @property
    def value(self):
        raise RuntimeError("the property was read")

    @property
    def __dict__(self):
        raise RuntimeError("__dict__ was read")


class RaisingDict(dict):
    def items(self):
        raise RuntimeError("items was called")

    __iter__ = keys = values = __len__ = items


class RaisingList(list):
    def __iter__(self):
        raise RuntimeError("__iter__ was called")

    __len__ = __iter__


class RaisingKey:
    def __repr__(self):
        raise RuntimeError("the key was written")


class RaisingTuple(tuple):
    __slots__ = ()

    def __iter__(self):
        raise RuntimeError("__iter__ was called")


class WrapsItself:
    @property
    def __wrapped__(self):
        return self

    def __getattr__(self, name):
        return self


def a_function_that_wraps_itself():
    def function():
        """Do nothing."""

    function.__wrapped__ = function
    return function


class LazyModule(types.ModuleType):
    def __getattribute__(self, name):
        raise RuntimeError(f"{name} was read")


VALUES = [
    gone, gone_callable, Raising, RaisingClass, RaisingSlots, RaisingProperty, lambda: RaisingDict(key=1),
    lambda: RaisingList([1]), lambda: {RaisingKey(): 1.0}, lambda: RaisingTuple((1.0,)), WrapsItself,
    a_function_that_wraps_itself, lambda: LazyModule("lazy"),
]  # fmt: skip


def a_module(x, scale):
    net = SmallNet()
    vars(net)["held"] = x  # a module's own __setattr__ looks at it
    return lambda t, y: scale * net(t, y)


def a_module_that_names_it(x, scale):
    class Named(nn.Module):
        held = x
        own = x

        def __init__(self):
            super().__init__()
            vars(self)["held"] = x

        def forward(self, t, y):
            return scale * y if t < 2.0 else (self.held, self.own)

    return Named()


def a_variable(x, scale):
    return lambda t, y: scale * y if t < 2.0 else x.value


def a_default(x, scale):
    return lambda t, y, x=x, *, z=x: scale * y if t < 2.0 else x + z


def a_partial(x, scale):
    return functools.partial(lambda a, t, y, b: scale * y if t < 2.0 else a + b, x, b=x)


def a_list(x, scale):
    held = [x, {"key": x}, (x,)]
    return lambda t, y: scale * y if t < 2.0 else held[0]["key"]


class Object:
    """A callable object whose attribute, on the object and on the class, is such a value."""

    def __init__(self, x, scale):
        self.held, self.scale = x, scale
        type(self).held_by_class = x

    def __call__(self, t, y):
        return self.scale * y if t < 2.0 else (self.held, self.held_by_class)


def an_attribute_of_func(x, scale):
    def func(t, y):
        return scale * y if t < 2.0 else func.held

    func.held = x
    return func


WHERE = [a_module, a_module_that_names_it, a_variable, a_default, a_partial, a_list, Object, an_attribute_of_func]


HOW = [
    {"gradient": "symplectic", "method": "rk4"},
    {"gradient": "continuous"},
    {"gradient": "mali"},
    {"capture": "auto"},
    {"on_failure": "return"},
]


@pytest.mark.parametrize(("how", "where", "make"), taking_turns(product(WHERE, VALUES), HOW))
def test_a_value_that_func_does_not_use_is_left_alone(where, make, how):
    scale = leaf(1)
    ys = sa.odeint(where(make(), scale), start(), T, **{"rtol": 1e-3, "atol": 1e-3, **how})
    (bar,) = torch.autograd.grad(ys.sum(), scale)
    assert bar.isfinite() and bar != 0.0


@pytest.mark.parametrize("make", VALUES)
@pytest.mark.parametrize("where", WHERE)
def test_a_derivative_of_the_gradient_leaves_it_alone_too(where, make):
    scale = leaf(1)
    ys = sa.odeint(where(make(), scale), start(), T, method="midpoint")
    (bar,) = torch.autograd.grad(ys.sum(), scale, create_graph=True)
    assert torch.autograd.grad(bar, scale)[0] != 0.0


def test_a_module_may_refer_to_a_trainer_that_is_gone():
    class Trained(nn.Module):
        def __init__(self):
            super().__init__()
            owner = Owner()
            self.trainer, self.inner = weakref.proxy(owner), SmallNet()

        def forward(self, t, y):
            return self.inner(t, y)

    net = Trained()
    for gradient in sa.GRADIENTS:
        sa.odeint(net, start(), T, rtol=1e-3, atol=1e-3, gradient=gradient).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.inner.outer.parameters())


def test_a_weak_proxy_to_a_module_is_followed():
    net = SmallNet()
    del net.unused
    proxy = weakref.proxy(net)
    for func in (proxy, lambda t, y: proxy(t, y)):
        ys = sa.odeint(func, start(), T, method="rk4")
        bars = torch.autograd.grad(ys.sum(), list(net.parameters()))
        wanted = sa.odeint(net, start(), T, method="rk4", gradient="backprop")
        torch.testing.assert_close(bars, torch.autograd.grad(wanted.sum(), list(net.parameters())))


@every_gradient
def test_a_tensor_is_found_behind_a_weak_proxy(gradient):
    owner, encoder = Owner(), leaf(3)
    proxy = weakref.proxy(owner)

    def solution(name, params):
        owner.scale = encoder.sin().sum()
        return solve(lambda t, y: proxy.scale * y, gradient=name, params=params)

    assert_as_backprop(solution, [encoder], gradient)


def test_a_change_behind_a_weak_proxy_is_named():
    owner, y0 = Owner(), start().requires_grad_()
    owner.rate, proxy = 1.0, weakref.proxy(owner)
    ys = sa.odeint(lambda t, y: -proxy.rate * y, y0, T, method="rk4")
    owner.rate = 2.0
    with pytest.raises(sa.FunctionChanged, match=r"proxy\.rate"):
        ys.sum().backward()
