"""What func reaches through slots, operators, proxies, hooks, attributes of functions and computed keys is found."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.gradients import EXACT
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    assert_as_backprop,
    every_gradient,
    leaf,
    solve,
)

# The continuous gradient is an approximation, a poor one across jumps.
exact_gradients = pytest.mark.parametrize("gradient", EXACT)
T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)


class Slotted:
    __slots__ = ("scale", "unset")

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, t, y):
        return self.scale * y


class Proxy:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


class Operator:
    """A linear operator, which code applies as A @ y."""

    def __init__(self, matrix):
        self._matrix = matrix

    def __matmul__(self, y):
        return y @ self._matrix


class Table:
    def __init__(self, scale):
        self._held = {"scale": scale}

    def __getitem__(self, key):
        return self._held[key]


def an_attribute_of_itself(scale):
    def func(t, y):
        return func.scale * y

    func.scale = scale
    return func


def a_hook(scale):
    net = SmallNet()
    net.register_forward_hook(lambda module, inputs, output: scale * output)
    return net


def a_slotted_variable(scale):
    held = Slotted(scale)
    return lambda t, y: held.scale * y


def a_proxy(scale):
    proxy = Proxy(Slotted(scale))
    return lambda t, y: proxy.scale * y


def a_table(scale):
    table = Table(scale)
    return lambda t, y: table["scale"] * y


def an_operator(scale):
    operator = Operator(scale * torch.eye(3, dtype=torch.float64))
    return lambda t, y: operator @ y


def an_entry_with_a_computed_key(scale):
    held, number = {"other": 1.0, "scale_3": scale}, 3
    return lambda t, y: held[f"scale_{number}"] * y * held["other"]


MAKERS = [
    Slotted,
    a_slotted_variable,
    a_proxy,
    a_table,
    an_operator,
    an_attribute_of_itself,
    a_hook,
    an_entry_with_a_computed_key,
]


@every_gradient
@pytest.mark.parametrize("make", MAKERS)
def test_a_computed_tensor_gets_its_gradient_wherever_code_reads_it(make, gradient):
    encoder = leaf(3)

    def solution(name, params):
        return solve(make(encoder.sin().sum()), gradient=name, params=params)

    assert_as_backprop(solution, [encoder], gradient)


@exact_gradients
@pytest.mark.parametrize("container", [list, lambda tensors: dict(enumerate(tensors))])
def test_the_other_leaves_of_a_container_are_parameters_too(container, gradient):
    matrices = [leaf(3, 3) for _ in range(3)]
    held = container(matrices)

    def func(t, y):
        return y @ held[min(int(3 * t), 2)]

    def solution(name, params):
        return solve(func, gradient=name, params=params, **FIXED)

    assert_as_backprop(solution, matrices, gradient)


@exact_gradients
def test_a_network_that_a_variable_holds_may_be_trained_again_before_the_backward_pass(gradient):
    net, y0 = SmallNet().requires_grad_(False), start().requires_grad_()
    ys = sa.odeint(lambda t, y: net(t, y), y0, T, method="rk4", gradient=gradient)
    net.requires_grad_(True)
    (bar,) = torch.autograd.grad(ys.sum(), y0)
    net.requires_grad_(False)
    expected = sa.odeint(lambda t, y: net(t, y), y0, T, method="rk4", gradient="backprop")
    torch.testing.assert_close(bar, torch.autograd.grad(expected.sum(), y0)[0])


@every_gradient
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_those_of_the_forward_pass(register, gradient):
    net, y0 = nn.Linear(3, 3).double(), start()

    def solution(name, params):
        solved = []
        for scale in (1.0, -2.0):

            def hook(module, inputs, output=None, scale=scale):
                return scale * (inputs[0] if output is None else output)

            handle = getattr(net, register)(hook)
            solved.append(solve(lambda t, y: net(y), y0, gradient=name, params=params))
            handle.remove()
        return torch.cat(solved)

    assert_as_backprop(solution, list(net.parameters()), gradient)
    assert not net._forward_hooks and not net._forward_pre_hooks


def test_hooks_that_func_registers_itself_stay():
    net, handles = nn.Linear(3, 3).double(), []

    def func(t, y):
        if not handles:
            handles.append(net.register_forward_hook(lambda module, inputs, output: None))
        return net(y)

    sa.odeint(func, start(), T, method="rk4").sum().backward()
    assert len(net._forward_hooks) == 1
    handles[0].remove()
    assert not net._forward_hooks


@pytest.mark.parametrize("make", [Slotted, an_attribute_of_itself])
def test_a_changed_slot_or_attribute_of_a_function_is_named(make):
    func = make(1.0)
    y0 = start().requires_grad_()
    ys = sa.odeint(func, y0, T, method="rk4")
    func.scale = 2.0
    with pytest.raises(sa.FunctionChanged, match=r"func\.scale, which func reads"):
        ys.sum().backward()


class Remembering(nn.Module):
    """Computes a context in its first call, and keeps it until reset."""

    def __init__(self):
        super().__init__()
        self.net, self.encoder, self.context = SmallNet(), nn.Linear(3, 3).double(), None

    def forward(self, t, y):
        if self.context is None:
            self.context = self.encoder(torch.ones(3, dtype=torch.float64))
        return self.net(t, y) + self.context


@exact_gradients
def test_what_the_first_call_computes_and_keeps_belongs_to_its_solve(gradient):
    func = Remembering()

    def solution(name, params):
        solved = []
        for _ in range(2):
            func.context = None
            solved.append(solve(func, gradient=name, params=params))
        func.context = None
        return torch.cat(solved)

    assert_as_backprop(solution, list(func.parameters()), gradient)
    assert func.context is None
