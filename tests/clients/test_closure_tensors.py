"""Tensors that func reaches in other ways than as parameters of its module, leaf or not, as torchdiffeq's users do."""

from functools import partial

import pytest
import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


def start():
    return torch.linspace(0.5, 1.5, 3)


def leaf():
    return torch.tensor([0.7, 1.1, 1.6], requires_grad=True)


def by_a_closure(a):
    return lambda t, y: -a * y


def by_a_default(a):
    return lambda t, y, a=a: -a * y


def by_a_partial(a):
    def f(a, t, y):
        return -a * y

    return partial(f, a)


def by_a_keyword_of_a_partial(a):
    def f(t, y, *, a):
        return -a * y

    return partial(partial(f), a=a)


def by_a_helper(a):
    def rate():
        return a

    return lambda t, y: -rate() * y


class Rate:
    def __init__(self, a):
        self.a = a

    def method(self, t, y):
        return -self.a * y

    def __call__(self, t, y):
        return -self.a * y


def by_a_bound_method(a):
    return Rate(a).method


def by_a_callable_object(a):
    return Rate(a)


def by_a_nested_object(a):
    rate = Rate(a)
    return lambda t, y: rate(t, y)


class Field(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, t, y):
        return -self.a * y


def by_an_attribute_of_a_module(a):
    return Field(a)


def by_a_closure_that_holds_the_module(a):
    field = Field(a)
    return lambda t, y: field(t, y)


WAYS = (
    by_a_closure,
    by_a_default,
    by_a_partial,
    by_a_keyword_of_a_partial,
    by_a_helper,
    by_a_bound_method,
    by_a_callable_object,
    by_a_nested_object,
    by_an_attribute_of_a_module,
    by_a_closure_that_holds_the_module,
)


@pytest.mark.parametrize("reach", WAYS)
def test_a_leaf(reach, solvers):
    def train(odeint):
        a, y0 = leaf(), start().requires_grad_()
        odeint(reach(a), y0, T)[-1].square().sum().backward()
        return {"a": a.grad, "y0": y0.grad}

    solvers.check(train)


@pytest.mark.parametrize("reach", WAYS)
def test_a_computed_tensor(reach, solvers):
    """Its gradient goes on into what it was computed from, once, also where the loss uses it too."""

    def train(odeint):
        a = leaf()
        rate = a.exp() + a
        rate.retain_grad()
        y = odeint(reach(rate), start(), T)[-1]
        (y.square().sum() + (rate * a).sum()).backward()
        return {"a": a.grad, "rate": rate.grad}

    solvers.check(train)


@pytest.mark.parametrize("reach", WAYS)
def test_one_output_of_a_split(reach, solvers):
    def train(odeint):
        a = torch.linspace(0.5, 1.5, 6, requires_grad=True)
        first, second = (a * a).split(3)
        third, *_ = torch.stack([first.sin(), second]).unbind()
        y = odeint(reach(second), start(), T)[-1] + odeint(reach(third), start(), T)[-1]
        y.square().sum().backward()
        return {"a": a.grad}

    solvers.check(train)


def test_attention_weights_computed_before_the_solve(solvers):
    """GRAND's way: attention over the start, kept as a plain attribute of the field, beside the field's own weights."""

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            # No bias of the key: softmax does not depend on it, and rounding errors have no relative error.
            self.query, self.key, self.scale = (
                nn.Linear(2, 4),
                nn.Linear(2, 4, bias=False),
                nn.Parameter(torch.ones(())),
            )
            self.attention = None

        def attend(self, x):
            self.attention = torch.softmax(self.query(x) @ self.key(x).T, 1)

        def forward(self, t, x):
            return self.scale * (self.attention @ x - x)

    def train(odeint):
        graph, x = Graph(), torch.randn(5, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        graph.attend(x)
        odeint(graph, x, T)[-1].square().sum().backward()
        return gradients_of(graph, x=x)

    solvers.check(train)


def test_an_initial_state_and_a_condition_of_one_encoder(solvers):
    def train(odeint):
        torch.manual_seed(0)
        encoder, net = nn.Linear(2, 6), nn.Linear(6, 3)
        state, condition = encoder(torch.randn(4, 2)).chunk(2, 1)
        odeint(lambda t, y: torch.tanh(net(torch.cat([y, condition], 1))), state, T)[-1].square().sum().backward()
        return gradients_of(encoder, net)

    solvers.check(train)


def test_a_hypernetwork(solvers):
    """All weights of the field are outputs of another network."""

    def train(odeint):
        torch.manual_seed(0)
        hyper = nn.Linear(2, 12)
        weight, bias = hyper(torch.randn(2)).split([9, 3])
        weight = weight.view(3, 3)
        f = lambda t, y: torch.tanh(nn.functional.linear(y, weight, bias))  # noqa: E731
        odeint(f, start(), T)[-1].square().sum().backward()
        return gradients_of(hyper)

    solvers.check(train)


def test_a_detached_tensor_has_no_gradient(solvers):
    def train(odeint):
        a, y0 = leaf(), start().requires_grad_()
        odeint(by_a_closure(a.detach() * 2.0), y0, T)[-1].sum().backward()
        return {"a": a.grad, "y0": y0.grad}

    solvers.check(train)
