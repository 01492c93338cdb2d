"""A continuous normalizing flow: autograd inside func gives the trace of its Jacobian."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(1.0, 0.0, 5, dtype=torch.float64)


class Flow(nn.Module):
    """The state is (z, log density), and func turns gradients on by itself, as it does in eval code."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t, state):
        z, _ = state
        with torch.set_grad_enabled(True):
            z.requires_grad_(True)
            dz = self.net(torch.cat([z, t.expand(len(z), 1)], 1))
            trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2))
        return dz, -trace.view(-1, 1)


def negative_log_likelihood(odeint, flow, x):
    z, change = odeint(flow, (x, torch.zeros(len(x), 1)), T)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z[-1]).sum(1, keepdim=True) - change[-1]
    return -log_p.mean()


def test_the_likelihood_of_a_batch(solvers):
    def train(odeint):
        flow, x = Flow(), torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
        negative_log_likelihood(odeint, flow, x).backward()
        return gradients_of(flow)

    solvers.check(train)


def test_the_score_of_a_sample(solvers):
    """d log p / dx, as for a Langevin step, with frozen parameters."""

    def train(odeint):
        flow = Flow().requires_grad_(False)
        x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        negative_log_likelihood(odeint, flow, x).backward()
        return {"score": x.grad}

    solvers.check(train)
