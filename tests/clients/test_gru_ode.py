"""An ODE-RNN: between observations the hidden state follows an ODE, one short solve each, then a cell updates it."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

TIMES = torch.cumsum(torch.tensor([0.0, 0.1, 0.25, 0.05, 0.3, 0.1]), 0)


class ODERNN(nn.Module):
    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.cell, self.head = nn.GRUCell(2, 4), nn.Linear(4, 2)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, times, x, observed):
        hidden, predictions = torch.zeros(x.shape[1], 4), []
        for i in range(len(times)):
            if i:
                hidden = self.odeint(self.field, hidden, times[i - 1 : i + 1])[-1]
            predictions.append(self.head(hidden))
            hidden = torch.where(observed[i], self.cell(x[i], hidden), hidden)
        return torch.stack(predictions)

    def field(self, t, h):
        return self.net(h)


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(TIMES), 3, 2, generator=generator), torch.rand(len(TIMES), 3, 1, generator=generator) < 0.7


def test_one_step_between_observations(solvers):
    def train(odeint):
        model = ODERNN(odeint)
        x, observed = data()
        ((model(TIMES.double(), x, observed) - x).square() * observed).sum().backward()
        return gradients_of(model)

    solvers.check(train)


class GRUField(nn.Module):
    """A continuous GRU: the cell itself is the field."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.x = nn.GRUCell(2, 4), None

    def forward(self, t, h):
        return self.cell(self.x, h) - h


def test_the_input_is_set_before_each_solve(solvers):
    """The field's input is an attribute of the module, another tensor in each solve."""

    def train(odeint):
        field, hidden = GRUField(), torch.zeros(3, 4)
        x, _ = data()
        for i in range(1, len(TIMES)):
            field.x = x[i]
            hidden = odeint(field, hidden, TIMES[i - 1 : i + 1].double())[-1]
        hidden.square().sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_the_input_is_computed_before_each_solve(solvers):
    """An embedding of the observation, which requires a gradient, is the attribute."""

    def train(odeint):
        field, embed, hidden = GRUField(), nn.Linear(2, 2), torch.zeros(3, 4)
        x, _ = data()
        for i in range(1, len(TIMES)):
            field.x = embed(x[i])
            hidden = odeint(field, hidden, TIMES[i - 1 : i + 1].double())[-1]
        hidden.square().sum().backward()
        return gradients_of(field, embed)

    solvers.check(train)
