"""Fit the rates of a stiff pharmacokinetic model to noisy concentrations.

    python -m symplectic_bench.examples.stiff_fit

A drug passes from the gut into the blood, is exchanged with the tissue within seconds, and is eliminated over hours.
The exchange makes the equations stiff: an explicit method takes steps of seconds for days, an implicit one takes those
that the concentration needs. The gradient is exact for the steps taken, so that few iterations suffice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symplectic_adjoint import odeint
from symplectic_bench.examples.command_line import Report, silent
from symplectic_bench.examples.figure import Figure, run_and_draw

BACK = 1000.0
"""The rate at which the tissue gives the drug back, per hour, assumed known: only its ratio to k_in shows."""

TRUE = {"k_absorb": 1.2, "k_eliminate": 0.15, "k_in": 600.0}
NOISE = 0.02  # relative


class Body(nn.Module):
    """The amounts in gut, blood and tissue, (patients, 3), with rates per hour, whose logarithms are the parameters."""

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.log_rates = nn.Parameter(rates.log())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        absorb, eliminate, into = self.log_rates.exp()
        gut, blood, tissue = y.unbind(dim=1)
        exchange = into * blood - BACK * tissue
        return torch.stack([-absorb * gut, absorb * gut - eliminate * blood - exchange, exchange], dim=1)


def blood(body: Body, doses: Tensor, times: Tensor) -> Tensor:
    """Return the amounts in the blood, (times, patients), after doses in the gut."""
    start = torch.stack([doses, torch.zeros_like(doses), torch.zeros_like(doses)], dim=1)
    return odeint(body, start, times, method="kvaerno5", rtol=1e-5, atol=1e-7)[:, :, 1]


@dataclass(frozen=True)
class Fitted:
    """The losses, the model, and what it was fitted to."""

    losses: list[float]
    body: Body
    doses: Tensor
    times: Tensor
    observed: Tensor


def train(*, iterations: int, seed: int = 0, patients: int = 8, report: Report = silent) -> Fitted:
    """Fit the rates, starting from others that are up to twice or half as large, to the amounts in the blood."""
    torch.manual_seed(seed)
    true = torch.tensor(list(TRUE.values()), dtype=torch.float64)
    doses = 50 + 100 * torch.rand(patients, dtype=torch.float64)
    times = torch.linspace(0.0, 24.0, 13, dtype=torch.float64)
    with torch.no_grad():
        observed = blood(Body(true), doses, times)
    observed = observed * (1 + NOISE * torch.randn_like(observed))
    body = Body(true * 2 ** (2 * torch.rand(3, dtype=torch.float64) - 1))
    optimizer = torch.optim.Adam(body.parameters(), lr=5e-2)
    losses = []
    for iteration in range(1, iterations + 1):
        modelled = blood(body, doses, times)[1:]
        loss = ((modelled - observed[1:]) / observed[1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    return Fitted(losses, body, doses, times, observed)


def draw(figure: Figure, fitted: Fitted) -> None:
    """Draw the losses, and the observations of four patients with the fitted curves."""
    fine = torch.linspace(0.0, 24.0, 200, dtype=torch.float64)
    with torch.no_grad():
        curves = blood(fitted.body, fitted.doses, fine)
        rates = fitted.body.log_rates.exp().tolist()
    left, right = figure.subplots(1, 2)
    left.plot(fitted.losses)
    left.set(xlabel="iteration", ylabel="mean square relative error", yscale="log")
    for i in range(min(4, len(fitted.doses))):
        (line,) = right.plot(fine, curves[:, i])
        right.plot(fitted.times, fitted.observed[:, i], "o", color=line.get_color())
    found = ", ".join(f"{name} {rate:.3g} ({TRUE[name]:g})" for name, rate in zip(TRUE, rates, strict=True))
    right.set(xlabel="hours", ylabel="amount in the blood")
    figure.suptitle(f"found (true): {found}", fontsize="medium")


if __name__ == "__main__":
    run_and_draw(train, draw, __doc__, name="stiff_fit", iterations=100)
