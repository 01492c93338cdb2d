"""torch.utils.checkpoint around a solve: the solve itself is run again in the backward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Block(nn.Module):
    """A layer, a solve, and a layer, with dropout outside the solve."""

    def __init__(self, odeint, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.odeint = odeint
        self.before, self.net, self.after = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.2)

    def field(self, t, y):
        return torch.tanh(self.net(y))

    def forward(self, x):
        return self.after(self.dropout(self.odeint(self.field, self.before(x), T)[-1]))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_gradient_is_that_without_a_checkpoint(solvers, use_reentrant):
    def train(odeint, checkpointed=True):
        blocks = nn.ModuleList([Block(odeint, seed) for seed in (0, 1)])
        torch.manual_seed(2)
        x = torch.randn(4, 3, requires_grad=True)
        y = x
        for block in blocks:
            y = checkpoint(block, y, use_reentrant=use_reentrant) if checkpointed else block(y)
        y.square().sum().backward()
        return gradients_of(blocks, x=x)

    solvers.check(train)
    plain, checkpointed = train(solvers.ours, checkpointed=False), train(solvers.ours)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_a_checkpoint_inside_the_field(solvers):
    def train(odeint):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))
        field = lambda t, y: checkpoint(net, y, use_reentrant=False)  # noqa: E731
        y0 = torch.randn(4, 3, requires_grad=True)
        odeint(field, y0, T)[-1].square().sum().backward()
        return gradients_of(net, y0=y0)

    solvers.check(train)
