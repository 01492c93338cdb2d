"""A siamese model: one encoder, with BatchNorm around its solve, called twice before one backward pass."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Encoder(nn.Module):
    """The module owns the field and the norms, and passes a method of its own to odeint."""

    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.before, self.after = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("samples_seen", torch.zeros((), dtype=torch.long))
        self.calls = 0

    def field(self, t, y):
        return torch.tanh(self.layer(y))

    def forward(self, x):
        self.calls += 1
        self.samples_seen += len(x)
        y = self.odeint(self.field, self.before(x), T)[-1]
        return self.head(self.after(y))


def contrastive_loss(first, second, same):
    distance = (first - second).square().sum(1)
    return (same * distance + (1 - same) * torch.relu(1.0 - distance)).mean()


def test_two_views_share_one_backward_pass(solvers):
    def train(odeint):
        encoder = Encoder(odeint).train()
        a, b = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
        contrastive_loss(encoder(a), encoder(b), torch.arange(6) % 2).backward()
        assert encoder.samples_seen == 12 and encoder.calls == 2
        return {**gradients_of(encoder), "running_mean": encoder.after.running_mean}

    solvers.check(train)


def test_a_view_encoded_in_eval_mode(solvers):
    """The second view is a target: eval mode, no gradient, and train mode again before the backward pass."""

    def train(odeint):
        encoder = Encoder(odeint).train()
        a, b = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
        online = encoder(a)
        with torch.no_grad():
            target = encoder.eval()(b)
        encoder.train()
        (online - target).square().sum().backward()
        return gradients_of(encoder)

    solvers.check(train)
