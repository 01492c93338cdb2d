"""Values that a field keeps from one call to the next: memos of embeddings, running statistics, the last output."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of
from tests.oracle import relative_error

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Embedded(nn.Module):
    """A memo of time embeddings, made from a parameter when a time is first seen."""

    def __init__(self, memo):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.net, self.memo = nn.Linear(1, 3), nn.Linear(3, 3), memo

    def forward(self, t, y):
        time = round(t.item(), 6)
        if time not in self.memo:
            self.memo[time] = self.embed(t.view(1))
        return torch.tanh(self.net(y) + self.memo[time])


def cleared_for_each_solve(odeint):
    field = Embedded({})
    loss = torch.zeros(())
    for _ in range(2):
        field.memo.clear()
        loss = loss + odeint(field, torch.ones(2, 3), T)[-1].square().sum()
    loss.backward()
    return gradients_of(field)


def right_or_refused(train, solvers):
    """Either the gradient is right, or an error of the library says so."""
    if solvers.ours.keywords["gradient"] == "backprop":
        return solvers.check(train)
    try:
        got = train(solvers.ours)
    except (sa.SolverError, ValueError):
        return None
    expected = train(solvers.truth)
    errors = {name: relative_error(got[name], expected[name]) for name in expected}
    assert max(errors.values()) < solvers.bound, errors
    return None


def test_a_memo_of_time_embeddings(grid_solvers):
    right_or_refused(cleared_for_each_solve, grid_solvers)


class Momentum(nn.Module):
    """The field depends on the call before: no function of t and y at all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.last = nn.Linear(3, 3), [torch.zeros(2, 3)]

    def forward(self, t, y):
        self.last[0] = torch.tanh(self.net(y)) + 0.5 * self.last[0].detach()
        return self.last[0]


def test_a_field_that_remembers_its_last_output(grid_solvers):
    def train(odeint):
        field = Momentum()
        odeint(field, torch.ones(2, 3), T)[-1].square().sum().backward()
        return gradients_of(field)

    right_or_refused(train, grid_solvers)


class Alternating(nn.Module):
    """A field with a counter that it reads: each second call has another sign."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.calls = nn.Linear(3, 3), 0

    def forward(self, t, y):
        self.calls += 1
        return torch.tanh(self.net(y)) * (1.0 + 0.5 * (self.calls % 3))


def test_a_field_that_reads_its_own_counter(grid_solvers):
    def train(odeint):
        field = Alternating()
        odeint(field, torch.ones(2, 3), T)[-1].square().sum().backward()
        return gradients_of(field)

    right_or_refused(train, grid_solvers)


@pytest.mark.parametrize("source", ["numpy", "random"])
def test_noise_that_is_not_torchs(source, grid_solvers):
    import random

    import numpy

    draw = {"numpy": numpy.random.default_rng(0).normal, "random": random.Random(0).gauss}[source]
    torch.manual_seed(0)
    net = nn.Linear(3, 3)

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return torch.tanh(self.net(y)) + draw(0.0, 0.1)

    if grid_solvers.ours.keywords["gradient"] != "backprop":
        with pytest.raises((sa.SolverError, ValueError)):
            grid_solvers.ours(Noisy(), torch.ones(2, 3), T)[-1].square().sum().backward()


def test_batch_norm_statistics_in_two_solves(grid_solvers):
    """Training mode uses the batch's statistics, so the truth does not depend on the running ones."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.norm, self.net = nn.BatchNorm1d(3), nn.Linear(3, 3)

        def forward(self, t, y):
            return torch.tanh(self.net(self.norm(y)))

    def train(odeint):
        field, x = Normed(), torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
        y = odeint(field, odeint(field, x, T)[-1], T)[-1]
        (y.cos() * torch.arange(6.0).unsqueeze(1)).sum().backward()
        return gradients_of(field)

    grid_solvers.check(train)
