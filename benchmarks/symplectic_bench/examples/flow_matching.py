"""Train a velocity by flow matching, and compute the likelihood of the model with its gradient.

    python -m symplectic_bench.examples.flow_matching

Training needs no solver: on the straight line from a normal point to a data point the velocity is their difference
(Lipman et al., Flow Matching for Generative Modeling, 2023). The density that the velocity generates does need one:
log p falls along the flow by the trace of the velocity's Jacobian. The figure shows log p and its gradient.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symplectic_adjoint import odeint
from symplectic_bench.examples.cnf import draw_crescents
from symplectic_bench.examples.command_line import Report, silent
from symplectic_bench.examples.figure import Figure, run_and_draw


class Velocity(nn.Module):
    """v(t, x) on points, (batch, 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))


class WithTrace(nn.Module):
    """(x, log p)' = (v, -tr(dv/dx)); given probes e, (probes, batch, dim), the mean of e' (dv/dx) e for the trace."""

    probes: Tensor

    def __init__(self, velocity: Velocity, probes: Tensor) -> None:
        super().__init__()
        self.velocity = velocity
        self.register_buffer("probes", probes)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, _ = state
        differentiated = torch.is_grad_enabled()
        with torch.enable_grad():  # the trace is a derivative, also where the solver records no graph
            x = x if x.requires_grad else x.detach().requires_grad_()
            v = self.velocity(t, x)
            rows = [torch.autograd.grad(v, x, e, create_graph=True)[0] for e in self.probes]
            trace = torch.stack([(row * e).sum(dim=1) for row, e in zip(rows, self.probes, strict=True)]).mean(dim=0)
        return (v, -trace) if differentiated else (v.detach(), -trace.detach())


def exact(x: Tensor) -> Tensor:
    """Return the probes of which the mean is the exact trace: the axes, scaled by the root of their number."""
    dim = x.shape[1]
    return dim**0.5 * torch.eye(dim)[:, None, :].expand(dim, *x.shape)


def hutchinson(x: Tensor) -> Tensor:
    """Return one random probe a point, with which the trace is right on average."""
    return torch.randn(1, *x.shape).sign()


def log_prob(velocity: Velocity, x: Tensor, probes: Tensor) -> Tensor:
    """Return log p(x), (batch,), differentiable in x and in the parameters."""
    start, times = (x, torch.zeros(len(x))), torch.tensor([1.0, 0.0])
    z, change = odeint(WithTrace(velocity, probes), start, times, rtol=1e-4, atol=1e-4)
    return -0.5 * z[-1].square().sum(dim=1) - 0.5 * x.shape[1] * math.log(2 * math.pi) - change[-1]


@dataclass(frozen=True)
class Trained:
    """The losses of flow matching and the velocity."""

    losses: list[float]
    velocity: Velocity


def train(*, iterations: int, seed: int = 0, batch: int = 256, width: int = 64, report: Report = silent) -> Trained:
    """Match the velocity to straight lines from normal points to two crescents."""
    torch.manual_seed(seed)
    velocity = Velocity(width)
    optimizer = torch.optim.Adam(velocity.parameters(), lr=3e-3)
    losses = []
    for iteration in range(1, iterations + 1):
        z, x, t = torch.randn(batch, 2), draw_crescents(batch), torch.rand(batch)
        loss = (velocity(t, torch.lerp(z, x, t[:, None])) - (x - z)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return Trained(losses, velocity)


def draw(figure: Figure, trained: Trained) -> None:
    """Draw log p with the exact trace on a grid, and its gradient at some data points."""
    side = torch.linspace(-2.5, 2.5, 40)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        density = log_prob(trained.velocity, grid, exact(grid)).reshape(len(side), len(side))
    x = draw_crescents(60).requires_grad_()
    logs = log_prob(trained.velocity, x, exact(x))
    (score,) = torch.autograd.grad(logs.sum(), x)
    left, right = figure.subplots(1, 2)
    left.plot(trained.losses)
    left.set(xlabel="iteration", ylabel="loss of flow matching")
    right.contourf(side, side, density.T, levels=torch.linspace(-8.0, 0.0, 17).tolist(), extend="both")
    right.quiver(*x.detach().T, *score.T, color="white", angles="xy")
    right.set_title(f"log p and its gradient; mean {logs.mean().item():.2f} nats")


if __name__ == "__main__":
    run_and_draw(train, draw, __doc__, name="flow_matching", iterations=3000)
