"""Fit a density in the plane with a continuous normalizing flow.

A point moves by z' = f(t, z), and the logarithm of its density changes at the rate -tr(df/dz). The flow maps a standard
normal at t = 0 to the data at t = 1, so each data point is solved back to t = 0, where its density is known. The state
is the pair (z, change of log p). The data are two interleaved crescents of entropy 0.95 nats, a lower bound of the
expected loss.
"""

import math
from types import ModuleType

import torch
from torch import Tensor, nn

from symplectic_bench.examples.command_line import Report, run, silent

SPREAD = 0.1  # standard deviation of the distance from the half circles on which the crescents are centred


class Flow(nn.Module):
    """(z, log p)' = (f(t, z), -tr(df/dz)) on states of shapes ((batch, 2), (batch,)), with time an input of f."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        )

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, _ = state
        differentiated = torch.is_grad_enabled()
        with torch.enable_grad():  # solvers may call under no_grad, but the trace is a derivative
            if not z.requires_grad:
                z = z.detach().requires_grad_()
            velocity = self.net(torch.cat([z, t.expand(len(z), 1)], dim=1))
            # Points of a batch are independent, so the derivative of their sum gives those of all points.
            rows = [torch.autograd.grad(velocity[:, i].sum(), z, create_graph=True)[0] for i in range(2)]
            trace = rows[0][:, 0] + rows[1][:, 1]
        return (velocity, -trace) if differentiated else (velocity.detach(), -trace.detach())


def draw_crescents(number: int) -> Tensor:
    """Draw points, (number, 2), half on an arch and half on an inverted arch interleaved with it."""
    angle = math.pi * torch.rand(number)
    radius = 1 + SPREAD * torch.randn(number)
    side = 1.0 - 2.0 * torch.randint(2, (number,))
    return torch.stack([side * (radius * angle.cos() - 0.5), side * (radius * angle.sin() - 0.25)], dim=1)


def log_density(odeint_library: ModuleType, flow: Flow, x: Tensor) -> Tensor:
    """Return log p(x), (batch,): the normal log-density where x came from, plus its change along the flow."""
    start = (x, torch.zeros(len(x)))
    z, change = odeint_library.odeint_adjoint(flow, start, torch.tensor([1.0, 0.0]), rtol=1e-4, atol=1e-4)
    return -0.5 * z[-1].square().sum(dim=1) - math.log(2 * math.pi) - change[-1]


def train(
    odeint_library: ModuleType, *, iterations: int, seed: int = 0, batch: int = 256, report: Report = silent
) -> list[float]:
    """Return the loss of every iteration, the negative log-likelihood of fresh data in nats per point."""
    torch.manual_seed(seed)
    flow = Flow()
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    losses = []
    for iteration in range(1, iterations + 1):
        loss = -log_density(odeint_library, flow, draw_crescents(batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return losses


if __name__ == "__main__":
    run(train, __doc__, iterations=500)
