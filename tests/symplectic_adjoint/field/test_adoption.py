"""Tensors that require a gradient and that no module holds get it, wherever func finds them."""

import functools
from typing import NamedTuple

import pytest
import torch
from torch import nn

from tests.fields import SmallNet, start
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    assert_as_backprop,
    every_gradient,
    leaf,
    solve,
)


class Pair(NamedTuple):
    rate: torch.Tensor
    shift: torch.Tensor


class Plain:
    """A callable object that is no module."""

    def __init__(self, scale, net=None):
        self.scale, self.net = scale, net

    def __call__(self, t, y):
        return self.scale * y if self.net is None else self.scale * self.net(t, y)

    def slope(self, t, y):
        return self(t, y).sin()


class Attribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def using(self, scale):
        self.attention_weights = scale
        return self

    def forward(self, t, y):
        return self.attention_weights * self.net(t, y)


class Buffered(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, t, y):
        return self.scale * y


class InATuple(Attribute):
    def forward(self, t, y):
        return self.attention_weights[0] * self.net(t, y) + self.attention_weights[1]


class Trainer(nn.Module):
    """The pattern of sampling code: a plain function inside a method, whose closure holds the module."""

    def __init__(self):
        super().__init__()
        self.m, self.head = SmallNet(), nn.Linear(3, 1).double()

    def func(self):
        def f(t, x):
            return self.m(t, x)

        return f


def computed(seed=0):
    """Return a leaf, and a tensor computed from it."""
    weight = leaf(3, seed=seed)
    return weight, (2.0 * weight).sin() + 0.5


def defaulted(scale):
    def func(t, y, s=scale, *, shift=scale):
        return s * y - shift

    return func


def helped(scale):
    def helper(y):
        return scale * y

    return lambda t, y: helper(y).tanh()


def listed(scale):
    held = [scale]
    return lambda t, y: held[0] * y


KINDS = {
    "closure": lambda x: lambda t, y: x * y,
    "closure of a helper": helped,
    "tuple": lambda x: (lambda pair: lambda t, y: pair[0] * y + pair[1][0])((x, (1.0, x)[1:])),
    "named tuple": lambda x: (lambda pair: lambda t, y: pair.rate * y + pair.shift)(Pair(x, x)),
    "default arguments": defaulted,
    "partial": lambda x: functools.partial(lambda s, t, y, shift: s * y + shift, x, shift=x),
    "partial of a module's method": lambda x: functools.partial(Buffered(x).forward),
    "list": listed,
    "dict": lambda x: (lambda held: lambda t, y: held["scale"] * y)({"scale": x}),
    "callable object": lambda x: Plain(x, SmallNet()),
    "bound method": lambda x: Plain(x).slope,
    "object in a closure": lambda x: (lambda held: lambda t, y: held.scale * y)(Plain(x)),
    "attribute of a module": lambda x: Attribute().using(x),
    "attribute of a module in a closure": lambda x: (lambda m: lambda t, y: m(t, y))(Attribute().using(x)),
    "tuple held by a module": lambda x: InATuple().using((x, x)),
    "buffer": Buffered,
}


@every_gradient
@pytest.mark.parametrize("kind", KINDS)
def test_a_leaf_gets_its_gradient(kind, gradient):
    weight = leaf(3)
    func = KINDS[kind](weight)
    assert_as_backprop(lambda g, _: solve(func, gradient=g), [weight], gradient)


@every_gradient
@pytest.mark.parametrize("kind", KINDS)
def test_a_computed_tensor_passes_its_gradient_on(kind, gradient):
    weight, scale = computed()
    func = KINDS[kind](scale)

    def solution(g, _):
        return solve(func, gradient=g) + scale  # the loss uses it too

    def again(g, _):
        fresh = (2.0 * weight).sin() + 0.5
        return solve(KINDS[kind](fresh), start() + fresh, gradient=g) * fresh

    torch.manual_seed(0)
    (expected,) = torch.autograd.grad(solution("backprop", ()).sum(), weight, retain_graph=True)
    (got,) = torch.autograd.grad(solution(gradient, ()).sum(), weight, retain_graph=True)
    bound = 1e-2 if gradient == "continuous" else 1e-12  # as in assert_as_backprop
    assert (got - expected).norm() < bound * expected.norm()
    if "module" not in kind and kind != "callable object":  # whose networks would be drawn anew
        assert_as_backprop(again, [weight], gradient)


@every_gradient
def test_a_function_in_a_method_finds_the_parts_of_the_module_that_it_uses(gradient):
    trainer = Trainer()
    inputs = [trainer.m.inner.weight, trainer.m.twice, trainer.head.weight]
    assert_as_backprop(lambda g, _: trainer.head(solve(trainer.func(), gradient=g)), inputs, gradient)


@every_gradient
def test_a_tensor_computed_by_funcs_own_module_is_counted_once(gradient):
    net = Attribute()
    weight = net.net.outer.weight

    def solution(g, _):
        return solve(net.using(weight.sum(1).exp()), gradient=g)

    assert_as_backprop(solution, [weight, net.net.inner.weight], gradient)


@every_gradient
def test_parts_of_one_tensor_are_told_apart(gradient):
    weight = leaf(6)

    def solution(g, _):
        first, second = weight.sin().chunk(2)
        rows = weight.reshape(2, 3).exp().unbind()
        return solve(lambda t, y: (first * y + second) * rows[1] - rows[0], gradient=g)

    assert_as_backprop(solution, [weight], gradient)


@every_gradient
def test_a_view_of_a_base_that_was_changed_in_place(gradient):
    weight = leaf(6)

    def solution(g, _):
        base = weight * 1.0
        view = base[:3]
        base.mul_(2.0)
        return solve(lambda t, y: view * y, gradient=g)

    assert_as_backprop(solution, [weight], gradient)


@every_gradient
def test_a_tensor_first_used_late(gradient):
    early, late, scale = leaf(3), *computed(seed=1)

    def func(t, y):
        return early * y if t < 0.5 else scale * y

    expected, got = (
        torch.autograd.grad(solve(func, gradient=g, **FIXED).sum(), [early, late], retain_graph=True)
        for g in ("backprop", gradient)
    )
    bound = 1e-2 if gradient == "continuous" else 1e-12  # as in assert_as_backprop
    assert all((a - b).norm() < bound * b.norm() for a, b in zip(got, expected, strict=True))


@every_gradient
def test_a_retained_gradient_is_the_whole_one_and_hooks_see_it_once(gradient):
    def run(gradient):
        weight, scale = computed()
        scale.retain_grad()
        seen = []
        scale.register_hook(lambda grad: seen.append(grad.clone()))
        (solve(lambda t, y: scale * y, gradient=gradient).sum() + scale.sum()).backward()
        assert len(seen) == 1 and torch.equal(seen[0], scale.grad)
        return scale.grad, weight.grad

    bound = 1e-2 if gradient == "continuous" else 1e-12  # as in assert_as_backprop
    for got, expected in zip(run(gradient), run("backprop"), strict=True):
        assert (got - expected).norm() < bound * expected.norm()


@every_gradient
def test_only_the_tensors_that_func_uses_make_ys_require_a_gradient(gradient):
    unused = leaf(3)
    held = [unused]
    ys = solve(lambda t, y: -y if held else y, gradient=gradient)
    assert not ys.requires_grad


@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline", "revolve", "stages"])
def test_second_derivatives_reach_what_a_tensor_was_computed_from(gradient):
    def second(gradient):
        weight, y0 = leaf(3), start().requires_grad_()
        scale = weight.exp()
        ys = solve(lambda t, y: torch.tanh(scale * y), y0, gradient=gradient)
        (first,) = torch.autograd.grad(ys.square().sum(), y0, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [weight, y0])

    for got, expected in zip(second(gradient), second("backprop"), strict=True):
        assert (got - expected).norm() < 1e-11 * expected.norm()  # one order of derivatives more


def in_containers(first):
    second, third = first.sin(), first.exp().chunk(3)
    held = [first, {"second": second}, third]
    return lambda t, y: torch.tanh(held[0] * y + held[1]["second"]) * held[2][0] - held[2][2]


@every_gradient
@pytest.mark.parametrize("own", [False, True], ids=["outside", "of func's own module"])
def test_a_container_may_hold_a_tensor_and_what_it_was_computed_from(own, gradient):
    """No leaf can stand in there: the VJPs end at the tensors themselves."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(leaf(3))

        def forward(self, t, y):
            return self.func(t, y) * self.weight

    holder = Holder()
    weight = holder.weight if own else leaf(3)

    def solution(g, _):
        first = (0.5 * weight).cos()
        holder.func = in_containers(first)
        func = holder if own else holder.func
        return solve(func, gradient=g) * first

    assert_as_backprop(solution, [weight], gradient)


@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline", "revolve", "stages"])
def test_second_derivatives_of_tensors_in_containers(gradient):
    def second(gradient):
        weight, y0 = leaf(3), start().requires_grad_()
        ys = solve(in_containers((0.5 * weight).cos()), y0, gradient=gradient)
        (first,) = torch.autograd.grad(ys.square().sum(), y0, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [weight, y0])

    for got, expected in zip(second(gradient), second("backprop"), strict=True):
        assert (got - expected).norm() < 1e-11 * expected.norm()  # one order of derivatives more
