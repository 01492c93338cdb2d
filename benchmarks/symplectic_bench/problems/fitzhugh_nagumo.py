"""The FitzHugh-Nagumo model of a nerve: a fast voltage v and a slow recovery w, alternating between rest and spikes.

FitzHugh, Impulses and physiological states in theoretical models of nerve membrane, Biophysical Journal, 1961;
Nagumo, Arimoto and Yoshizawa, An active pulse transmission line simulating nerve axon, Proceedings of the IRE, 1962.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class FitzHughNagumoField(nn.Module):
    """v' = v - v^3 / 3 - w + I,  w' = (v + a - b w) / tau, with constants = (a, b, tau, I) the parameters."""

    def __init__(self, constants: Tensor) -> None:
        super().__init__()
        self.constants = nn.Parameter(constants)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        a, b, tau, current = self.constants
        v, w = y[:, 0], y[:, 1]
        return torch.stack([v - v * v * v / 3 - w + current, (v + a - b * w) / tau], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    a, b, tau, current = theta[0]
    v, w = y[:, 0], y[:, 1]
    return ops.stack([v - v * v * v / 3 - w + current, (v + a - b * w) / tau], axis=1)


def draw(source: Source, batch: int, *, end: float = 20.0, outputs: int = 10) -> Problem:
    """Draw starts scattered about (-1, 0), near rest. Nearly all fire once by the default end, at different times.

    The constants are FitzHugh's, and the current makes the nerve fire periodically, about every 40 units of time.
    """
    constants = torch.tensor([0.7, 0.8, 12.5, 0.5], dtype=torch.float64)
    y0 = torch.tensor([-1.0, 0.0], dtype=torch.float64) + source.normal(batch, 2, std=0.2)
    return Problem(FitzHughNagumoField(constants), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


FITZHUGH_NAGUMO = Family("fitzhugh_nagumo", draw, formula)
