"""Learn the field of a spiral from observed trajectories.

The observed motion circles the origin at a constant angular velocity and approaches the unit circle from outside and
from inside: r' = a r (1 - r^2), angle' = w. Its solution is known, so the observations need no solver. Every iteration
draws short pieces of the trajectories, solves from the first point of each, and compares with the points that follow.
"""

import math
from types import ModuleType

import torch
from torch import Tensor, nn

from symplectic_bench.examples.command_line import Report, run, silent

ATTRACTION, FREQUENCY = 0.5, 2.0


class Field(nn.Module):
    """y' = net(y), independent of time."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        )

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.net(y)


def observe(trajectories: int, times: Tensor) -> Tensor:
    """Return the solution, (times, trajectories, 2), from random points with radii between 0.2 and 2."""
    first_radius = 0.2 + 1.8 * torch.rand(trajectories)
    first_angle = 2 * math.pi * torch.rand(trajectories)
    decay = torch.exp(-2 * ATTRACTION * times)[:, None]
    radius = (1 + (first_radius**-2 - 1) * decay).rsqrt()
    angle = first_angle + FREQUENCY * times[:, None]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)


def draw_pieces(observed: Tensor, length: int, number: int) -> Tensor:
    """Draw pieces, (length, number, 2): `length` consecutive observations from random trajectories and times."""
    first = torch.randint(len(observed) - length + 1, (number,))
    which = torch.randint(observed.shape[1], (number,))
    return observed[first + torch.arange(length)[:, None], which]


def train(
    odeint_library: ModuleType,
    *,
    iterations: int,
    seed: int = 0,
    batch: int = 64,
    length: int = 6,
    report: Report = silent,
) -> list[float]:
    """Return the loss of every iteration, the mean square error of the predicted coordinates."""
    torch.manual_seed(seed)
    times = torch.linspace(0.0, 5.0, 51)
    observed = observe(20, times)
    field = Field()
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    losses = []
    for iteration in range(1, iterations + 1):
        piece = draw_pieces(observed, length, batch)
        ys = odeint_library.odeint_adjoint(field, piece[0], times[:length], rtol=1e-4, atol=1e-5)
        loss = (ys - piece).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return losses


if __name__ == "__main__":
    run(train, __doc__, iterations=300)
