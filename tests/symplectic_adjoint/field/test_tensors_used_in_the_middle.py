"""Tensors that func uses only in the middle of a solve, in a graph as large as that of its first call."""

import types
from collections import ChainMap, OrderedDict, UserDict, UserList, defaultdict, deque
from functools import lru_cache
from operator import attrgetter

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.parameter_gradients import (
    APPROXIMATE,
    FIXED,
    ROUNDING,
    every_gradient,
    leaf,
    losing_gradients,
    solve,
)


def in_the_middle(t):
    return 0.3 < t < 0.7


def choosing(get):
    """Return func with get(0) as its coefficient, and get(1) in the middle."""
    return lambda t, y: -y * get(1 if in_the_middle(t) else 0)


class Plain:
    def __init__(self, a, b):
        self.w0, self.w1 = a, b


class Slotted:
    __slots__ = ("w0", "w1")

    def __init__(self, a, b):
        self.w0, self.w1 = a, b


def by_getattr(a, b):
    held = Plain(a, b)
    return lambda k: getattr(held, f"w{k}")


def of_slots(a, b):
    held = Slotted(a, b)
    return lambda k: getattr(held, f"w{k}")


def by_dict(a, b):
    held = Plain(a, b)
    return lambda k: held.__dict__[f"w{k}"]


def by_vars(a, b):
    held = Plain(a, b)
    return lambda k: vars(held)[f"w{k}"]


def by_attrgetter(a, b):
    held, getters = Plain(a, b), (attrgetter("w0"), attrgetter("w1"))
    return lambda k: getters[k](held)


def in_a_method_of_the_object(a, b):
    class Chooser(Plain):
        def choose(self, k):
            return getattr(self, f"w{k}")

    return Chooser(a, b).choose


def in_a_long_list(a, b):
    held = [a, b, *(torch.zeros(3, dtype=torch.float64) for _ in range(1000))]
    return lambda k: held[k]


def in_a_long_dict(a, b):
    held = {k: torch.zeros(3, dtype=torch.float64) for k in range(1000)} | {0: a, 1: b}
    return lambda k: held[k]


def in_a_namespace(a, b):
    held = types.SimpleNamespace(w0=a, w1=b)
    return lambda k: getattr(held, f"w{k}")


def in_nested_containers(a, b):
    held = deque([{"w": UserList([a])}, {"w": UserList([b])}])
    return lambda k: held[k]["w"][0]


def cached(a, b):
    held = deque([a, b])

    @lru_cache
    def get(k):
        return held[k]

    return get


HOLDERS = {
    "list": lambda a, b: [a, b].__getitem__,
    "deque": lambda a, b: lambda k, held=deque([a, b]): held[k],
    "UserList": lambda a, b: lambda k, held=UserList([a, b]): held[k],
    "UserDict": lambda a, b: lambda k, held=UserDict({0: a, 1: b}): held[k],
    "ChainMap": lambda a, b: lambda k, held=ChainMap({0: a}, {1: b}): held[k],
    "OrderedDict": lambda a, b: lambda k, held=OrderedDict({0: a, 1: b}): held[k],
    "defaultdict": lambda a, b: lambda k, held=defaultdict(list, {0: a, 1: b}): held[k],
    "a view of a dict": lambda a, b: lambda k, held=types.MappingProxyType({0: a, 1: b}): held[k],
    "a long list": in_a_long_list,
    "a long dict": in_a_long_dict,
    "getattr": by_getattr,
    "slots": of_slots,
    "__dict__": by_dict,
    "vars": by_vars,
    "attrgetter": by_attrgetter,
    "a method": in_a_method_of_the_object,
    "a namespace": in_a_namespace,
    "nested containers": in_nested_containers,
    "a cache": cached,
}
TAKES_ACCUMULATE = ("symplectic", "stages", "aca", "revolve", "auto")
every_holder = pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)


@every_gradient
@every_holder
def test_a_leaf_gets_its_gradient_wherever_it_is_held(holder, gradient):
    a, b = leaf(3), leaf(3, seed=1)
    func = choosing(holder(a, b))
    assert_right(lambda g: solve(func, gradient=g, **FIXED), [a, b], gradient)


@every_gradient
@every_holder
def test_a_leaf_in_the_place_of_a_constant_gets_its_gradient_or_is_named(holder, gradient):
    constant, b = torch.full((3,), 0.3, dtype=torch.float64), leaf(3, seed=1)
    func = choosing(holder(constant, b))
    assert_right_or_lost(lambda g: solve(func, start().requires_grad_(), gradient=g, **FIXED), [b], gradient)


@every_gradient
@pytest.mark.parametrize("holder", [UserDict, Plain], ids=["found", "hidden"])
def test_a_computed_tensor_held_twice_passes_its_whole_gradient_on_or_is_named(holder, gradient):
    p = leaf(3)

    def solution(gradient):
        w = p * 2
        held = UserDict(w=w) if holder is UserDict else Plain(w, w)

        def func(t, y):
            other = held["w"] if holder is UserDict else held.__getattribute__("w" + "1")
            return -y * (other if in_the_middle(t) else w)

        return solve(func, gradient=gradient, **FIXED)

    assert_right_or_lost(solution, [p], gradient)


def assert_right(solution, inputs, gradient):
    """Compare with backprop. The continuous adjoint steps over two jumps; without one of the tensors it is off by 1."""
    expected, got = (
        torch.autograd.grad(weighted_loss(solution(g)), inputs, allow_unused=True) for g in ("backprop", gradient)
    )
    assert all(x is not None and x.norm() > 0 for x in expected)
    assert all(x is not None for x in got)
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    assert max(errors) < (0.2 if gradient == "continuous" else ROUNDING if gradient in EXACT else APPROXIMATE), errors


def assert_right_or_lost(solution, inputs, gradient):
    try:
        assert_right(solution, inputs, gradient)
    except sa.LostGradient:
        assert gradient != "backprop"


class Net(nn.Module):
    """Layers that its field finds by a computed name."""

    def __init__(self, find):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(3, dtype=torch.float64)
        self.layer0, self.layer1 = (nn.Linear(3, 3, dtype=torch.float64) for _ in range(2))
        self.find = find

    def field(self, t, y):
        return self.find(self, 1 if in_the_middle(t) else 0)(self.norm(y))

    def solve(self, gradient):
        return solve(lambda t, y: self.field(t, y), gradient=gradient, **FIXED)


FINDS = {
    "getattr": lambda net, k: getattr(net, f"layer{k}"),
    "_modules": lambda net, k: net._modules[f"layer{k}"],
    "get_submodule": lambda net, k: net.get_submodule(f"layer{k}"),
    "children": lambda net, k: list(net.children())[k + 1],
    "named_children": lambda net, k: dict(net.named_children())[f"layer{k}"],
    "modules": lambda net, k: list(net.modules())[k + 2],
    "attrgetter": lambda net, k: attrgetter(f"layer{k}")(net),
}


@every_gradient
@pytest.mark.parametrize("find", FINDS.values(), ids=FINDS)
def test_a_layer_found_by_a_computed_name_gets_its_gradient(find, gradient):
    net = Net(find)
    assert_right(net.solve, list(net.parameters()), gradient)


@every_gradient
def test_a_parameter_found_by_name_gets_its_gradient(gradient):
    net = nn.ParameterDict({f"w{k}": leaf(3, seed=k) for k in range(2)})
    func = choosing(lambda k: net.get_parameter(f"w{k}"))
    assert_right(lambda g: solve(func, gradient=g, **FIXED), list(net.parameters()), gradient)


@losing_gradients
@pytest.mark.parametrize("in_the_place_of", ["a leaf", "a constant"])
@pytest.mark.parametrize("keywords", [{}, {"accumulate": "float64"}], ids=["plain", "accumulate"])
def test_one_that_nothing_shows_is_an_error(in_the_place_of, gradient, keywords):
    if keywords and gradient not in TAKES_ACCUMULATE:
        pytest.skip("takes no accumulate")
    first = leaf(3) if in_the_place_of == "a leaf" else torch.ones(3, dtype=torch.float64)
    func = choosing(generator_of(first, leaf(3, seed=1)).send)
    ys = solve(func, start().requires_grad_(), gradient=gradient, **FIXED, **keywords)
    with pytest.raises(sa.LostGradient, match=r"params=\(tensor,\)"):
        ys.sum().backward()


def generator_of(a, b):
    """Return a generator, whose variables Python does not show, that answers k with a or b."""

    def generate():
        k = 0
        while True:
            k = yield (a, b)[k]

    generator = generate()
    next(generator)
    return generator


@losing_gradients
def test_one_that_nothing_shows_is_an_error_in_second_derivatives(gradient):
    if gradient not in EXACT:
        pytest.skip("has no second derivatives")
    y0 = start().requires_grad_()
    func = choosing(generator_of(leaf(3), leaf(3, seed=1)).send)
    with pytest.raises(sa.LostGradient):
        torch.autograd.grad(solve(func, y0, gradient=gradient, **FIXED).sum(), y0, create_graph=True)


@every_gradient
def test_one_that_is_only_held_makes_no_ys_require_a_gradient(gradient):
    held = deque([leaf(3), leaf(3)])
    assert not solve(lambda t, y: -y * len(held), gradient=gradient).requires_grad


def test_one_that_is_only_held_gets_no_gradient():
    held, weight = {"unused": leaf(1000, 1000), "used": 2.0}, leaf(3)
    solve(lambda t, y: -y * weight * held["used"], gradient="symplectic").sum().backward()
    assert held["unused"].grad is None and weight.grad is not None
