"""Learn the energy of the Korteweg-de Vries equation from moving waves.

    python -m symplectic_bench.examples.kdv_energy

The equation is u_t = d/dx (dH/du) with an energy H that is to be learned: the network gives a density at each point of
a grid, from three neighbours, and the field is the derivative of their sum (Greydanus et al., Hamiltonian Neural
Networks, 2019). So f is itself a gradient, and the gradient of the loss has second derivatives. The data are solitary
waves, u = c/2 sech^2(sqrt(c)/2 (x - c t)), which need no solver; a wave twice as high moves twice as fast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symplectic_adjoint import odeint
from symplectic_bench.examples.command_line import Report, silent
from symplectic_bench.examples.figure import Figure, run_and_draw

POINTS, LENGTH = 50, 20.0
DX = LENGTH / POINTS


class Energy(nn.Module):
    """u' = d/dx (dH/du) on states, (batch, POINTS), of period LENGTH."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.density = nn.Sequential(
            nn.Conv1d(1, width, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.Conv1d(width, 1, 1)
        )

    def energy(self, u: Tensor) -> Tensor:
        """Return H, (batch,)."""
        return DX * self.density(u[:, None]).sum(dim=(1, 2))

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        del t
        differentiated = torch.is_grad_enabled()
        with torch.enable_grad():  # the field is a derivative, also where the solver records no graph
            u = u if u.requires_grad else u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(u).sum() / DX, u, create_graph=True)
        change = (slope.roll(-1, 1) - slope.roll(1, 1)) / (2 * DX)
        return change if differentiated else change.detach()


def waves(speeds: Tensor, places: Tensor, times: Tensor) -> Tensor:
    """Return solitary waves, (times, batch, POINTS), with these speeds and first places, each (batch, 1)."""
    x = DX * torch.arange(POINTS)
    away = torch.remainder(x - places - speeds * times[:, None, None] + LENGTH / 2, LENGTH) - LENGTH / 2
    return speeds / 2 / torch.cosh(speeds.sqrt() / 2 * away).square()


@dataclass(frozen=True)
class Trained:
    """The losses and the model."""

    losses: list[float]
    model: Energy


def train(*, iterations: int, seed: int = 0, batch: int = 32, width: int = 32, report: Report = silent) -> Trained:
    """Fit the energy to short pieces of single waves of speeds from 0.5 to 2."""
    torch.manual_seed(seed)
    times = torch.linspace(0.0, 0.5, 3)
    model = Energy(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for iteration in range(1, iterations + 1):
        observed = waves(0.5 + 1.5 * torch.rand(batch, 1), LENGTH * torch.rand(batch, 1), times)
        loss = (odeint(model, observed[0], times, rtol=1e-4, atol=1e-4) - observed).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return Trained(losses, model)


def draw(figure: Figure, trained: Trained) -> None:
    """Draw the losses, and a wave at later times than any in training beside the true one."""
    times = torch.linspace(0.0, 2.0, 5)
    true = waves(torch.tensor([[1.5]]), torch.tensor([[6.0]]), times)
    with torch.no_grad():
        learned = odeint(trained.model, true[0], times, rtol=1e-4, atol=1e-4)
    left, right = figure.subplots(1, 2)
    left.plot(trained.losses)
    left.set(xlabel="iteration", ylabel="mean square error", yscale="log")
    for i, t in enumerate(times.tolist()):
        (line,) = right.plot(DX * torch.arange(POINTS), learned[i, 0], label=f"t = {t:g}")
        right.plot(DX * torch.arange(POINTS), true[i, 0], ":", color=line.get_color())
    right.set(xlabel="x", ylabel="u; dotted: true")
    right.legend()


if __name__ == "__main__":
    run_and_draw(train, draw, __doc__, name="kdv_energy", iterations=300)
