"""Gradients that add up over micro-batches, over losses of one solve, and over solves of one backward pass."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, t, y):
        return self.net(y)


def micro_batches():
    return torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))


def test_micro_batches_between_optimizer_steps(solvers):
    def train(odeint):
        field = Field()
        optimizer = torch.optim.SGD(field.parameters(), lr=0.1, momentum=0.9)
        for pair in micro_batches().split(2):
            optimizer.zero_grad()
            for x in pair:
                (odeint(field, x, T)[-1].square().mean() / 2).backward()
            optimizer.step()
        return {**gradients_of(field), "weight": field.net[0].weight}

    solvers.check(train)


def test_two_losses_of_one_solve(solvers):
    """Two backward passes through one graph, retained for the second."""

    def train(odeint):
        field, x = Field(), micro_batches()[0].requires_grad_()
        ys = odeint(field, x, T)
        ys[-1].square().sum().backward(retain_graph=True)
        ys[2].sin().sum().backward()
        return gradients_of(field, x=x)

    solvers.check(train)


def test_solves_with_several_fields_in_a_stack(solvers):
    """One after the other, with a layer that all of them share in between."""

    def train(odeint):
        fields, shared = nn.ModuleList([Field(), Field()]), nn.Linear(3, 3)
        y = micro_batches()[0]
        for field in [*fields, fields[0]]:
            y = shared(odeint(field, y, T)[-1])
        y.square().sum().backward()
        return gradients_of(fields, shared)

    solvers.check(train)


def test_gradients_of_some_inputs_only(solvers):
    def train(odeint):
        field, x = Field(), micro_batches()[0].requires_grad_()
        ys = odeint(field, x, T)
        (of_x,) = torch.autograd.grad(ys[-1].square().sum(), x, retain_graph=True)
        weight = field.net[0].weight
        (of_weight,) = torch.autograd.grad(ys[-1].square().sum(), weight)
        return {"x": of_x, "weight": of_weight}

    solvers.check(train)


def test_hooks_and_retained_gradients(solvers):
    """A hook on a parameter and on the outputs, and the gradient of a start that is no leaf."""

    def train(odeint):
        field, x, seen = Field(), micro_batches()[0].requires_grad_(), {}
        field.net[0].weight.register_hook(lambda g: 2.0 * g)
        start = x * 2.0
        start.retain_grad()
        ys = odeint(field, start, T)
        ys.register_hook(lambda g: seen.update(outputs=g))
        ys[-1].square().sum().backward()
        return gradients_of(field, x=x, start=start) | seen

    solvers.check(train)
