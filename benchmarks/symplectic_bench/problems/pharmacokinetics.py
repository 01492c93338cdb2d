"""A drug that binds to its target, infused on a schedule into patients whose clearance a network tells.

Mager and Jusko, General pharmacokinetic model for drugs exhibiting target-mediated drug disposition, Journal of
Pharmacokinetics and Pharmacodynamics, 2001. Binding takes minutes and elimination days, which makes it stiff. The
network takes the place of the formula that pharmacometricians write for clearance (Lu, Deng, Zhang, Liu and Guan,
Neural-ODE for pharmacokinetics modeling and its advantage to alternative machine learning models in predicting new
dosing regimens, iScience, 2021).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.mlp import dense
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

RATES = (2.0, 1.0, 500.0, 5.0, 1.0, 0.5)
"""Per day: to tissue, from tissue, binding, unbinding, of the complex, of the target. The target is made at its rate of
loss, so that without the drug it is 1."""

INFUSION = 0.1
"""Length of an infusion as a part of the time from one to the next."""


class DrugField(nn.Module):
    """Drug in blood C and tissue T, free target R and their complex P; y = (C, T, R, P), a day the unit of time.

    C' = dose - cl C - k_ct C + k_tc T - b,  T' = k_ct C - k_tc T,  R' = k_r (1 - R) - b,  P' = b - k_p P,
    b = k_on C R - k_off P,

    where dose is a patient's own while an infusion runs, else 0, and cl = exp(net(C, covariates)). An infusion begins
    or ends at each of the switches. The parameters are the logarithms of the six rates and the network's weights.
    """

    switches: Tensor
    doses: Tensor
    covariates: Tensor

    def __init__(self, log_rates: Tensor, net: nn.Module, switches: Tensor, doses: Tensor, covariates: Tensor) -> None:
        super().__init__()
        self.log_rates, self.net = nn.Parameter(log_rates), net
        self.register_buffer("switches", switches)
        self.register_buffer("doses", doses)
        self.register_buffer("covariates", covariates)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        C, T, R, P = y.unbind(1)
        to_tissue, from_tissue, on, off, complexes, targets = self.log_rates.exp()
        cleared = self.net(torch.cat([y[:, :1], self.covariates], dim=1))[:, 0].exp() * C
        infused = (self.switches <= t).sum() % 2 * self.doses[:, 0]
        exchanged, bound = to_tissue * C - from_tissue * T, on * C * R - off * P
        slopes = [
            infused - cleared - exchanged - bound,
            exchanged,
            targets * (1 - R) - bound,
            bound - complexes * P,
        ]
        return torch.stack(slopes, dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic in which t can be compared: t must be a number, not a symbol."""
    log_rates, W, b, V, c = theta
    C, T, R, P = (y[:, i] for i in range(4))
    to_tissue, from_tissue, on, off, complexes, targets = ops.exp(log_rates)
    seen = ops.concatenate([y[:, :1], held["covariates"]], axis=1)
    cleared = ops.exp((ops.tanh(seen @ W.T + b) @ V.T + c)[:, 0]) * C
    infused = sum(s <= ops.plain(t) for s in held["switches"]) % 2 * held["doses"][:, 0]
    exchanged, bound = to_tissue * C - from_tissue * T, on * C * R - off * P
    slopes = [infused - cleared - exchanged - bound, exchanged, targets * (1 - R) - bound, bound - complexes * P]
    return ops.stack(slopes, axis=1)


def draw(source: Source, batch: int, *, width: int = 8, doses: int = 3, end: float = 3.0, outputs: int = 12) -> Problem:
    """Draw a patient per sample: a dose, weight and age as covariates, and starts with little drug.

    The `doses` infusions are evenly spaced. Stability limits explicit methods to steps of about 3 / (k_on (C + R)), a
    few minutes.
    """
    every = end / doses
    # Off the output times, and rounded to float32, as the switches of the problem "forced" and for the same reasons.
    begins = every * (torch.arange(doses, dtype=torch.float64) + 2**-0.5 / 4)
    switches = torch.stack([begins, begins + INFUSION * every], dim=1).flatten().float().double()
    rate = 2 / (INFUSION * every) * source.normal(batch, 1, std=0.2).exp()  # twice the target, in each infusion
    net = nn.Sequential(dense(source, 3, width), nn.Tanh(), dense(source, width, 1))
    func = DrugField(torch.tensor(RATES, dtype=torch.float64).log(), net, switches, rate, source.normal(batch, 2))
    drug = source.normal(batch, 2, std=0.3).exp() * torch.tensor([0.1, 0.1])
    target = source.normal(batch, 2, std=0.1).exp() * torch.tensor([1.0, 0.05])
    y0 = torch.cat([drug, target], dim=1)
    measured = MeanSquare(source.normal(batch, 4))
    return Problem(func, y0, output_times(end, outputs), measured, jumps=tuple(switches.tolist()))


PHARMACOKINETICS = Family("pharmacokinetics", draw, formula, jumps=True)
