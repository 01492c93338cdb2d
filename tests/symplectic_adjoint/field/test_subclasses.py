"""Tensors of subclasses, as states, times, parameters, buffers and values of func."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

import symplectic_adjoint as sa
from tests.fields import weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.parameter_gradients import (
    APPROXIMATE,
    FIXED,
    LOOSE,
    ROUNDING,
    T,
    every_gradient,
    losing_gradients,
)


class Named(Tensor):
    """A subclass that hangs attributes on its tensors, as those of imaging libraries do."""


class Wrapper(Tensor):
    """A subclass that has no values of its own."""

    @staticmethod
    def __new__(cls, inner):
        return Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = _pytree.tree_map(_inner, (args, kwargs or {}))
        return _pytree.tree_map(lambda x: cls(x) if isinstance(x, Tensor) else x, func(*args, **kwargs))


def _inner(x):
    return x.inner if isinstance(x, Wrapper) else x


def named(x):
    x = x.as_subclass(Named)
    x.spacing = 0.5
    return x


def same(x):
    return x


class Net(nn.Module):
    """A field whose weight and bias may be of a subclass."""

    def __init__(self, weight=same, bias=same):
        super().__init__()
        self.weight = nn.Parameter(weight(torch.linspace(-1.0, 1.0, 9, dtype=torch.float64).reshape(3, 3)))
        self.register_buffer("bias", bias(torch.full((3,), 0.1, dtype=torch.float64)))

    def forward(self, t, y):
        return torch.tanh(y @ self.weight.T) * t + self.bias


class Pair(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, state):
        y, z = state
        return self.net(t, y), -z


def start():
    return torch.linspace(0.1, 1.0, 6, dtype=torch.float64).reshape(2, 3)


def values(ys):
    return ys if isinstance(ys, Tensor) else torch.cat([part.flatten(1) for part in ys], 1)


def gradients(func, y0, weight, gradient, t=T, **keywords):
    lead = y0 if isinstance(y0, Tensor) else y0[0]
    ys = values(sa.odeint(func, y0, t, gradient=gradient, **{**FIXED, **keywords}))
    assert type(ys) is Tensor
    return [_inner(x).as_subclass(Tensor) for x in torch.autograd.grad(weighted_loss(ys), (lead, weight))]


def assert_same(got, expected, gradient):
    bound = ROUNDING if gradient in EXACT else APPROXIMATE
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound


STATES = {
    "a subclass": lambda: named(start()).requires_grad_(),
    "one computed": lambda: named(start().requires_grad_() * 1.0),
    "a parameter": lambda: nn.Parameter(start()),
    "a parameter of a subclass": lambda: nn.Parameter(named(start())),
}


@every_gradient
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("keywords", [FIXED, {"method": "dopri5", "options": {}, **LOOSE}], ids=["fixed", "adaptive"])
def test_a_state_may_be(state, keywords, gradient):
    net, plain = Net(), Net()
    got = gradients(net, STATES[state](), net.weight, gradient, **keywords)
    expected = gradients(plain, start().requires_grad_(), plain.weight, gradient, **keywords)
    assert_same(got, expected, gradient)


@every_gradient
def test_parts_of_a_state_may_be_subclasses(gradient):
    net, plain = Net(), Net()
    y0 = (named(start()).requires_grad_(), named(torch.ones(3, dtype=torch.float64)))
    got = gradients(Pair(net), y0, net.weight, gradient)
    y0 = (start().requires_grad_(), torch.ones(3, dtype=torch.float64))
    assert_same(got, gradients(Pair(plain), y0, plain.weight, gradient), gradient)


KINDS = {
    "parameter": lambda: Net(weight=named),
    "buffer": lambda: Net(bias=named),
    "parameter and buffer": lambda: Net(weight=named, bias=named),
    "nn.Buffer": lambda: Net(bias=nn.Buffer),
    "parameter that wraps": lambda: Net(weight=Wrapper),
    "buffer that wraps": lambda: Net(bias=Wrapper),
}


STARTS = {"with a plain state": start, "with a subclass": lambda: named(start())}


@every_gradient
@pytest.mark.parametrize("state", STARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_func_may_hold_a(kind, state, gradient):
    if "wraps" in kind and (gradient == "backprop" or state == "with a subclass"):
        return  # ys are of that class too, or torch itself cannot combine the two
    net, plain = KINDS[kind](), Net()
    got = gradients(net, STARTS[state]().requires_grad_(), net.weight, gradient)
    assert_same(got, gradients(plain, start().requires_grad_(), plain.weight, "backprop"), gradient)


@losing_gradients
def test_a_state_may_wrap_another_tensor(gradient):
    net, plain = Net(), Net()
    y0 = Wrapper(start()).requires_grad_()
    loss = weighted_loss(sa.odeint(net, y0, T, gradient=gradient, **FIXED))
    got = [_inner(x) for x in torch.autograd.grad(loss, (y0, net.weight))]
    assert_same(got, gradients(plain, start().requires_grad_(), plain.weight, "backprop"), gradient)


@every_gradient
def test_times_may_be_a_subclass(gradient):
    t, plain, net = named(T.clone()).requires_grad_(), T.clone().requires_grad_(), Net()
    got = gradients(net, start().requires_grad_(), t, gradient, t)
    assert_same(got, gradients(net, start().requires_grad_(), plain, gradient, plain), gradient)


def test_func_is_passed_the_class_and_its_attributes_in_every_call():
    seen = []

    def func(t, y):
        seen.append((type(y), y.spacing))
        return -y

    y0 = named(start()).requires_grad_()
    sa.odeint(func, y0, T, **FIXED).sum().backward()
    assert set(seen) == {(Named, 0.5)}
    assert type(y0.grad) is Tensor


def test_an_event_function_is_passed_the_class_too():
    def event(t, y):
        assert type(y) is Named
        return y[0, 0] - 0.05

    y0 = named(start()).requires_grad_()
    t, ys = sa.odeint(lambda t, y: -y, y0, T[[0, -1]], event_fn=event)
    assert type(t) is type(ys) is Tensor
    (rate,) = torch.autograd.grad(t, y0)
    assert abs(rate[0, 0].item() - 10.0) < 1e-5  # d log(y0 / 0.05) / d y0, to rtol


def test_a_dense_solution_and_a_stopped_state_are_plain():
    solution = sa.odeint_dense(lambda t, y: -y, named(start()), 0.0, 1.0)
    assert type(solution(0.5)) is Tensor
    stopped = sa.solve(lambda t, y: -y, named(start()), T, options={"stop": lambda t, y: t > 0.2})
    assert type(stopped.stopped_y) is Tensor


def test_second_derivatives():
    def second(y0):
        (rate,) = torch.autograd.grad(sa.odeint(Net(), y0, T, **FIXED)[-1].sum(), y0, create_graph=True)
        return torch.autograd.grad(rate.square().sum(), y0)[0]

    got, expected = second(named(start()).requires_grad_()), second(start().requires_grad_())
    assert relative_error(got.as_subclass(Tensor), expected) < ROUNDING


@losing_gradients
def test_a_loss_of_that_class_has_its_backward_pass(gradient):
    """torch then runs the whole backward pass, func included, with subclasses turned off."""
    net, plain = Net(weight=named), Net()
    target = named(torch.zeros(2, 3, dtype=torch.float64))
    y0 = named(start()).requires_grad_()
    (sa.odeint(net, y0, T, gradient=gradient, **FIXED)[-1] - target).square().sum().backward()
    other = start().requires_grad_()
    sa.odeint(plain, other, T, gradient="backprop", **FIXED)[-1].square().sum().backward()
    assert_same([y0.grad, net.weight.grad], [other.grad, plain.weight.grad], gradient)
