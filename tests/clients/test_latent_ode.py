"""A latent ODE on real series: a recurrent encoder, and observation times that repeat."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

# Two sensors that report at one time, and a first observation that was stored twice.
T = torch.tensor([0.0, 0.0, 0.3, 0.5, 0.5, 0.5, 1.0], dtype=torch.float64)


class LatentODE(nn.Module):
    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.encoder, self.to_posterior = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 8)
        self.field, self.decoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), nn.Linear(4, 2)

    def forward(self, t, x, noise):
        times = t.view(1, -1, 1).expand(len(x), -1, 1)
        _, hidden = self.encoder(torch.cat([x, times], 2).flip(1))
        mean, log_std = self.to_posterior(hidden[0]).chunk(2, 1)
        z0 = mean + noise * log_std.exp()
        zs = self.odeint(lambda t, z: self.field(z), z0, t)
        kl = 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).sum(1)
        return self.decoder(zs).transpose(0, 1), kl.mean()


def evidence_bound(model, t):
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(5, len(t), 2, generator=generator), torch.randn(5, 4, generator=generator)
    x_hat, kl = model(t, x, noise)
    return (x_hat - x).square().sum((1, 2)).mean() + kl


def test_repeated_observation_times(solvers):
    """torchdiffeq refuses them: the truth has the solution at the distinct times, indexed."""

    def at_distinct_times(func, y0, t):
        distinct, index = torch.unique(t, return_inverse=True)
        return solvers.truth(func, y0, distinct)[index]

    def train(odeint):
        model = LatentODE(odeint)
        evidence_bound(model, T).backward()
        return gradients_of(model)

    solvers._replace(truth=at_distinct_times).check(train)


def test_a_series_with_one_observation(solvers):
    """The solution at its own start: the truth solves nothing."""

    def train(odeint):
        model = LatentODE(odeint)
        evidence_bound(model, T[:1]).backward()
        return gradients_of(model.encoder, model.to_posterior, model.decoder)

    solvers._replace(truth=lambda func, y0, t: y0.unsqueeze(0)).check(train)


def test_masked_training_over_several_steps(solvers):
    def train(odeint):
        model = LatentODE(odeint)
        optimizer = torch.optim.Adamax(model.parameters(), lr=0.01)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = evidence_bound(model, torch.tensor([0.0, 0.2, 0.7, 1.0]))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return {"losses": torch.stack(losses), **gradients_of(model)}

    solvers.check(train)
