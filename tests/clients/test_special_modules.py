"""Fields made of scripted, traced, lazy, quantised or counted modules, and fields that write to their outputs."""

import pytest
import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
# torch.jit is deprecated, and still in use.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def start():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, y):
        return self.second(torch.tanh(self.first(y)))


class Field(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, y):
        return self.net(y)


def scripted():
    return torch.jit.script(Net())


def traced():
    return torch.jit.trace(Net(), start())


def scripted_part():
    net = Net()
    net.second = torch.jit.script(net.second)
    return net


@pytest.mark.parametrize("make", [scripted, traced, scripted_part])
def test_a_scripted_network(make, solvers):
    def train(odeint):
        net = make()
        odeint(Field(net), start(), T)[-1].square().sum().backward()
        return gradients_of(net)

    solvers.check(train)


def test_the_whole_field_is_scripted(solvers):
    def train(odeint):
        field = torch.jit.script(Field(Net()))
        odeint(field, start(), T)[-1].square().sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_a_lazy_layer_is_materialised_by_the_solve(solvers):
    def train(odeint):
        torch.manual_seed(0)
        net = nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.LazyLinear(3))
        odeint(Field(net), start(), T)[-1].square().sum().backward()
        return gradients_of(net)

    solvers.check(train)


class InPlace(nn.Module):
    """Blocks that add to their outputs in place, for a state that is a pair."""

    def __init__(self):
        super().__init__()
        self.net, self.couple = Net(), nn.Parameter(torch.tensor(0.3))

    def forward(self, t, state):
        x, v = state
        dx, dv = self.net(v), self.net(x)
        dx += self.couple * x
        dv.mul_(0.5).sub_(v)
        return dx, dv


def test_outputs_changed_in_place(solvers):
    def train(odeint):
        field = InPlace()
        x, v = odeint(field, (start(), -start()), T)
        (x[-1].square().sum() + v[1].sin().sum()).backward()
        return gradients_of(field)

    solvers.check(train)


def test_a_field_that_returns_views_of_one_buffer(solvers):
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(6, 6)

        def forward(self, t, state):
            return torch.tanh(self.net(torch.cat(state, 1))).chunk(2, 1)

    def train(odeint):
        field = Halves()
        x, v = odeint(field, (start(), -start()), T)
        (x[-1] * v[-1]).sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_weight_norm_and_tied_weights(solvers):
    def train(odeint):
        net = Net()
        net.first = nn.utils.parametrizations.weight_norm(net.first)
        tied = nn.Linear(6, 3)
        net.second = tied
        net.also_second = tied
        odeint(Field(net), start(), T)[-1].square().sum().backward()
        return gradients_of(net)

    solvers.check(train)
