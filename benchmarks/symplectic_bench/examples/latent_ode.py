"""Model noisy spirals by an ODE in a latent space.

A recurrent encoder reads a spiral from its last observation to its first and returns the distribution of the initial
latent state; the ODE is solved from a sample of it over all the times; a decoder maps latent states to points of the
plane. The three are trained together on the evidence lower bound of a variational autoencoder.
"""

import math
from types import ModuleType

import torch
from torch import Tensor, nn

from symplectic_bench.examples.command_line import Report, run, silent

NOISE = 0.3  # standard deviation of the observations, assumed known


class LatentField(nn.Module):
    """z' = net(z), independent of time."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(latent, width), nn.Tanh(), nn.Linear(width, latent))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        del t
        return self.net(z)


class LatentODE(nn.Module):
    """Encoder, field and decoder."""

    def __init__(self, latent: int = 4, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.GRU(2, width)
        self.posterior = nn.Linear(width, 2 * latent)
        self.field = LatentField(latent, width)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.Tanh(), nn.Linear(width, 2))

    def encode(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latent state at the first time, each (batch, latent)."""
        _, last = self.encoder(observed.flip(0))
        mean, log_variance = self.posterior(last[0]).chunk(2, dim=1)
        return mean, log_variance


def observe(spirals: int, times: Tensor) -> Tensor:
    """Draw noisy spirals, (times, spirals, 2), with random opening rates, directions and initial angles."""
    rate = 0.1 + 0.2 * torch.rand(spirals)
    turn = 1.0 - 2.0 * torch.randint(2, (spirals,))
    first_angle = 2 * math.pi * torch.rand(spirals)
    radius = 0.3 + rate * times[:, None]
    angle = first_angle + turn * times[:, None]
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return points + NOISE * torch.randn_like(points)


def negative_elbo(odeint_library: ModuleType, model: LatentODE, observed: Tensor, times: Tensor) -> Tensor:
    """Return the negative ELBO in nats per observed number, with one sample of the initial latent state."""
    mean, log_variance = model.encode(observed)
    start = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    path = odeint_library.odeint_adjoint(model.field, start, times, rtol=1e-3, atol=1e-4)
    residual = (model.decoder(path) - observed) / NOISE
    surprise = 0.5 * residual.square().sum() + observed.numel() * math.log(NOISE * math.sqrt(2 * math.pi))
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()  # from the standard normal
    return (surprise + divergence) / observed.numel()


def train(
    odeint_library: ModuleType, *, iterations: int, seed: int = 0, batch: int = 64, report: Report = silent
) -> list[float]:
    """Return the loss of every iteration, the negative evidence lower bound of a minibatch."""
    torch.manual_seed(seed)
    times = torch.linspace(0.0, 6.0, 20)
    observed = observe(512, times)
    model = LatentODE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for iteration in range(1, iterations + 1):
        minibatch = observed[:, torch.randint(observed.shape[1], (batch,))]
        loss = negative_elbo(odeint_library, model, minibatch, times)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return losses


if __name__ == "__main__":
    run(train, __doc__, iterations=300)
