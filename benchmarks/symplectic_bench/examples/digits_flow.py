"""Fit the density of handwritten digits, 8 x 8 pixels, with a continuous normalizing flow, and draw samples.

    python -m symplectic_bench.examples.digits_flow

The logarithm of a density changes along the flow at the rate -tr(df/dz), which is estimated by Hutchinson's
e' (df/dz) e with one random e a solve (Grathwohl et al., FFJORD, 2019). Samples are normal points that are carried to
t = 1.
"""

import math
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from symplectic_adjoint import odeint
from symplectic_bench.examples.command_line import Report, silent
from symplectic_bench.examples.figure import Figure, draw_losses_and_images, run_and_draw

PIXELS = 64
TOLERANCE = 1e-3


class Flow(nn.Module):
    """(z, log p)' = (f(t, z), -e' (df/dz) e) on states of shapes ((batch, 64), (batch,))."""

    probe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(PIXELS + 1, width),
            nn.Softplus(),
            nn.Linear(width, width),
            nn.Softplus(),
            nn.Linear(width, PIXELS),
        )
        self.register_buffer("probe", torch.zeros(0))

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Return dz/dt, shaped like z."""
        return self.net(torch.cat([z, t.expand(len(z), 1)], dim=1))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, _ = state
        differentiated = torch.is_grad_enabled()
        with torch.enable_grad():  # the trace is a derivative, also where the solver records no graph
            z = z if z.requires_grad else z.detach().requires_grad_()
            velocity = self.velocity(t, z)
            (row,) = torch.autograd.grad(velocity, z, self.probe, create_graph=True)
            trace = (row * self.probe).sum(dim=1)
        return (velocity, -trace) if differentiated else (velocity.detach(), -trace.detach())


@dataclass(frozen=True)
class Trained:
    """The losses, in nats a pixel, and the flow."""

    losses: list[float]
    flow: Flow


def log_density(flow: Flow, x: Tensor) -> Tensor:
    """Return the estimate of log p(x), (batch,), for x of shape (batch, 64)."""
    flow.probe = torch.randn_like(x).sign()
    z, change = odeint(flow, (x, torch.zeros(len(x))), torch.tensor([1.0, 0.0]), rtol=TOLERANCE, atol=TOLERANCE)
    return -0.5 * z[-1].square().sum(dim=1) - 0.5 * PIXELS * math.log(2 * math.pi) - change[-1]


def draw_samples(flow: Flow, number: int) -> Tensor:
    """Return images, (number, 8, 8), of the pixels' values from 0 to 16."""
    with torch.no_grad():
        path = odeint(
            flow.velocity, torch.randn(number, PIXELS), torch.tensor([0.0, 1.0]), rtol=TOLERANCE, atol=TOLERANCE
        )
    return (8 + 4 * path[-1].reshape(number, 8, 8)).clamp(0, 16)


def train(*, iterations: int, seed: int = 0, batch: int = 128, width: int = 128, report: Report = silent) -> Trained:
    """Fit the flow to the digits, with noise between the sixteen grey levels."""
    torch.manual_seed(seed)
    pixels, _ = load_digits(return_X_y=True)
    digits = torch.tensor(pixels, dtype=torch.float32)
    flow = Flow(width)
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    losses = []
    for iteration in range(1, iterations + 1):
        chosen = digits[torch.randint(len(digits), (batch,))]
        x = (chosen + torch.rand_like(chosen) - 8.5) / 4
        loss = -log_density(flow, x).mean() / PIXELS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return Trained(losses, flow)


def draw(figure: Figure, trained: Trained) -> None:
    """Draw the losses and 24 samples."""
    samples = draw_samples(trained.flow, 24)
    draw_losses_and_images(figure, trained.losses, "negative log-likelihood, nats a pixel", samples)


if __name__ == "__main__":
    run_and_draw(train, draw, __doc__, name="digits_flow", iterations=300)
