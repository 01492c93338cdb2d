"""HIRES, the chemistry of a plant's response to light by its phytochrome: eight equations, moderately stiff.

Schäfer, A new approach to explain the high irradiance responses of photomorphogenesis on the basis of phytochrome,
Journal of Mathematical Biology, 1975; as a test problem in Hairer and Wanner, Solving Ordinary Differential Equations
II, 1996, section IV.10, and in the test set of Mazzia and Magherini, 2008, whose names of the rates are used here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

RATES = (1.71, 0.43, 8.32, 0.69, 0.035, 8.32, 280.0, 0.69, 0.69, 0.0007)
"""k_1 to k_6, k_+, k_-, k_* and the constant source."""

START = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057)


class HiresField(nn.Module):
    """Linear reactions between eight concentrations y and one pair that bind, at rate k_+ y_6 y_8.

    The parameters are the logarithms of the ten rates, whose derivatives are of comparable size.
    """

    def __init__(self, log_rates: Tensor) -> None:
        super().__init__()
        self.log_rates = nn.Parameter(log_rates)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return torch.stack(_slopes(self.log_rates.exp().unbind(), y.unbind(1)), dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    return ops.stack(_slopes(ops.exp(theta[0]), [y[:, i] for i in range(8)]), axis=1)


def _slopes(rates: Sequence[Array], y: Sequence[Array]) -> list[Array]:
    """Return the derivatives of the eight concentrations, by plus, minus and times alone."""
    k1, k2, k3, k4, k5, k6, binding, k_minus, k_star, supply = rates
    bound = binding * y[5] * y[7] - (k2 + k_minus + k_star) * y[6]
    return [
        k2 * y[1] - k1 * y[0] + k6 * y[2] + supply,
        k1 * y[0] - (k2 + k3) * y[1],
        k2 * y[3] + k5 * y[4] - (k6 + k1) * y[2],
        k3 * y[1] + k1 * y[2] - (k4 + k2) * y[3],
        k2 * (y[5] + y[6]) - (k1 + k5) * y[4],
        k4 * y[3] + k1 * y[4] - k2 * y[5] + k_star * y[6] - binding * y[5] * y[7],
        bound,
        -bound,
    ]


def draw(source: Source, batch: int, *, end: float = 10.0, outputs: int = 4) -> Problem:
    """Draw starts that differ from the published one by a tenth.

    The test set ends at 321.8122, after the last sudden change; explicit methods take 40 steps for each unit of time.
    """
    y0 = torch.tensor(START, dtype=torch.float64) * source.normal(batch, 8, std=0.1).exp()
    log_rates = torch.tensor(RATES, dtype=torch.float64).log()
    target = source.normal(batch, 8, std=0.01)
    return Problem(HiresField(log_rates), y0, output_times(end, outputs), MeanSquare(target))


HIRES = Family("hires", draw, formula)
