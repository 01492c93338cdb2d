"""Data-parallel threads, and fields that solve: modules that share a part, solves in each other's fields."""

import sys
import threading

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of
from tests.oracle import relative_error

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
TIME_LIMIT_S = 30  # a solve takes milliseconds: beyond, the threads wait for each other
ROUNDING = 1e-12  # as in test_exactness


class Field(nn.Module):
    def __init__(self, trunk, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk, self.head = trunk, nn.Linear(6, 3)

    def forward(self, t, y):
        return self.head(torch.tanh(self.trunk(y)))


def in_threads(*works):
    """Run the works in threads that switch often; return what they returned, or raise the first error."""
    results, errors = [None] * len(works), []

    def run(i, work):
        try:
            results[i] = work()
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIME_LIMIT_S)
            assert not thread.is_alive(), "the threads wait for each other"
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("name", ["symplectic", "aca", "continuous"])
def test_two_heads_of_one_trunk(name):
    torch.manual_seed(0)
    trunk = nn.Linear(3, 6)
    fields = [Field(trunk, seed) for seed in (1, 2)]

    def gradient(field):
        y = sa.odeint(field, torch.ones(2, 3), T, gradient=name, method="rk4")[-1]
        return torch.cat([g.flatten() for g in torch.autograd.grad(y.square().sum(), list(field.parameters()))])

    expected = [gradient(field) for field in fields]
    got = in_threads(*([lambda field=field: [gradient(field) for _ in range(20)]][0] for field in fields))
    for many, one in zip(got, expected, strict=True):
        assert all(relative_error(each, one) < ROUNDING for each in many)


class Outer(nn.Module):
    """A field that solves another field's ODE for each of its values."""

    def __init__(self, odeint, inner):
        super().__init__()
        torch.manual_seed(3)
        self.odeint, self.inner, self.layer = odeint, inner, nn.Linear(3, 3)

    def forward(self, t, y):
        return torch.tanh(self.layer(self.odeint(self.inner, y, T)[-1]))


def test_a_solve_inside_a_field(exact_solvers):
    def train(odeint):
        torch.manual_seed(0)
        outer = Outer(odeint, Field(nn.Linear(3, 6), 1))
        odeint(outer, torch.ones(2, 3), T)[-1].square().sum().backward()
        return gradients_of(outer)

    exact_solvers.check(train)


@pytest.mark.parametrize("name", ["symplectic", "aca"])
def test_fields_that_solve_each_other_in_two_threads(name):
    """f of A solves B in one thread while f of B solves A in the other."""

    def odeint(func, y0, t):
        return sa.odeint(func, y0, t, gradient=name, method="rk4")

    torch.manual_seed(0)
    a, b = Field(nn.Linear(3, 6), 1), Field(nn.Linear(3, 6), 2)
    outer_a, outer_b = Outer(odeint, b), Outer(odeint, a)
    outer_a.own, outer_b.own = a, b

    def gradient(outer):
        f = lambda t, y: outer.own(t, y) + outer(t, y)  # noqa: E731
        y = odeint(f, torch.ones(2, 3), T)[-1]
        return torch.autograd.grad(y.square().sum(), outer.layer.weight)[0]

    expected = [gradient(outer) for outer in (outer_a, outer_b)]
    got = in_threads(*([lambda outer=outer: gradient(outer)][0] for outer in (outer_a, outer_b)))
    assert all(relative_error(x, y) < ROUNDING for x, y in zip(got, expected, strict=True))


def test_a_backward_pass_in_another_thread(solvers):
    """As autograd's device threads do, and as pipelines of a server do."""

    def train(odeint):
        torch.manual_seed(0)
        field = Field(nn.Linear(3, 6), 1)
        loss = odeint(field, torch.ones(2, 3), T)[-1].square().sum()
        in_threads(loss.backward)
        return gradients_of(field)

    solvers.check(train)
