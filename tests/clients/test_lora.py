"""Low-rank adaptation: a frozen field with trained adapters, as modules of its own or as parametrizations."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Adapted(nn.Module):
    """A frozen layer plus a product of two small matrices."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(0.3 * torch.randn(rank, base.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, t, y):
        return self.second(torch.tanh(self.first(y)))


def start():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def test_only_the_adapters_are_trained(solvers):
    def train(odeint):
        field = Field()
        field.first, field.second = Adapted(field.first), Adapted(field.second)
        odeint(field, start(), T)[-1].square().sum().backward()
        assert all((p.grad is None) == ("base" in name) for name, p in field.named_parameters())
        return gradients_of(field)

    solvers.check(train)


class LowRank(nn.Module):
    def __init__(self, rows, columns, rank=2):
        super().__init__()
        self.up, self.down = nn.Parameter(0.3 * torch.randn(rows, rank)), nn.Parameter(0.3 * torch.randn(rank, columns))

    def forward(self, weight):
        return weight + self.up @ self.down


def test_adapters_as_parametrizations(solvers):
    def train(odeint):
        field = Field().requires_grad_(False)
        parametrize.register_parametrization(field.first, "weight", LowRank(6, 3))
        odeint(field, start(), T)[-1].square().sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_adapters_computed_before_the_solve(solvers):
    """parametrize.cached() computes the weight once: func then reads a tensor that is no leaf."""

    def train(odeint):
        field = Field().requires_grad_(False)
        parametrize.register_parametrization(field.first, "weight", LowRank(6, 3))
        with parametrize.cached():
            ys = odeint(field, start(), T)
        ys[-1].square().sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_the_adapters_of_a_task_are_swapped_between_solves(solvers):
    """Each task has its own adapter, put in the same slot; all tasks share one backward pass."""

    def train(odeint):
        field = Field()
        base = field.first
        adapters = nn.ModuleList([Adapted(base), Adapted(base)])
        loss = torch.zeros(())
        for adapter in adapters:
            field.first = adapter
            loss = loss + odeint(field, start(), T)[-1].square().sum()
        loss.backward()
        return gradients_of(adapters, field.second)

    solvers.check(train)
