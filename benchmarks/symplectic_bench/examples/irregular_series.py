"""Model series that are observed at irregular times, each at its own, by an ODE in a latent space.

    python -m symplectic_bench.examples.irregular_series

A recurrent encoder reads values and the gaps between them, from the last to the first, and returns the latent state at
time zero. One solve serves the whole batch: its outputs are all the times of all series, between which no step has to
end, and each series takes those of its own (after Rubanova et al., Latent ODEs for Irregularly-Sampled Time Series,
2019).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symplectic_adjoint import NeuralODE
from symplectic_bench.examples.command_line import Report, silent
from symplectic_bench.examples.figure import Figure, run_and_draw
from symplectic_bench.examples.latent_ode import LatentField

END, OBSERVATIONS, NOISE = 5.0, 12, 0.05


class LatentODE(nn.Module):
    """Encoder, solve and decoder."""

    def __init__(self, latent: int = 6, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.GRU(2, width, batch_first=True)
        self.to_latent = nn.Linear(width, latent)
        self.solve = NeuralODE(LatentField(latent, width), rtol=1e-3, atol=1e-4)
        self.decoder = nn.Linear(latent, 1)

    def forward(self, times: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
        """Return the values, (batch, wanted), at the wanted times of series observed at times, both (batch, number)."""
        gaps = times.diff(dim=1, prepend=torch.zeros(len(times), 1))
        _, last = self.encoder(torch.stack([values, gaps], dim=2).flip(1))
        all_times, place = torch.cat([torch.zeros(1), wanted.flatten()]).unique(return_inverse=True)
        path = self.solve(self.to_latent(last[0]), all_times)  # (all times, batch, latent)
        sample = torch.arange(len(times))[:, None]
        return self.decoder(path[place[1:].reshape(wanted.shape), sample])[..., 0]


def observe(series: int) -> tuple[Tensor, Tensor]:
    """Draw times and values, each (series, OBSERVATIONS), of sines of random frequencies and phases, with noise."""
    times, _ = (END * torch.rand(series, OBSERVATIONS)).sort(dim=1)
    frequency, phase = 1 + torch.rand(series, 1), 2 * math.pi * torch.rand(series, 1)
    return times, (frequency * times + phase).sin() + NOISE * torch.randn_like(times)


@dataclass(frozen=True)
class Trained:
    """The losses and the model."""

    losses: list[float]
    model: LatentODE


def train(*, iterations: int, seed: int = 0, batch: int = 32, report: Report = silent) -> Trained:
    """Fit the model to reconstruct its observations. The variance of the noise, 0.0025, is the least loss."""
    torch.manual_seed(seed)
    model = LatentODE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for iteration in range(1, iterations + 1):
        times, values = observe(batch)
        loss = (model(times, values, times) - values).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return Trained(losses, model)


def draw(figure: Figure, trained: Trained) -> None:
    """Draw the losses, and three series with what the model makes of them between the observations."""
    times, values = observe(3)
    wanted = torch.linspace(0.0, END, 100).expand(3, 100)
    with torch.no_grad():
        curves = trained.model(times, values, wanted)
    left, right = figure.subplots(1, 2)
    left.plot(trained.losses)
    left.set(xlabel="iteration", ylabel="mean square error", yscale="log")
    for i in range(3):
        (line,) = right.plot(wanted[i], curves[i])
        right.plot(times[i], values[i], "o", color=line.get_color())
    right.set(xlabel="t", ylabel="observed and modelled")


if __name__ == "__main__":
    run_and_draw(train, draw, __doc__, name="irregular_series", iterations=500)
