"""Two masses on springs, and a spring between them, through which their energy passes to and fro.

French, Vibrations and Waves, 1971, chapter 5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class CoupledOscillatorsField(nn.Module):
    """x_1'' = -k_1 x_1 - k (x_1 - x_2) - d x_1',  x_2'' = -k_2 x_2 - k (x_2 - x_1) - d x_2', with unit masses.

    y, (batch, 4), is (x_1, x_2, x_1', x_2'), and constants = (k_1, k_2, k, d) the parameters.
    """

    def __init__(self, constants: Tensor) -> None:
        super().__init__()
        self.constants = nn.Parameter(constants)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        x, v = y[:, :2], y[:, 2:]
        between = self.constants[2] * (x - x.flip(1))
        return torch.cat([v, -self.constants[:2] * x - between - self.constants[3] * v], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    k_1, k_2, k, d = theta[0]
    x_1, x_2, v_1, v_2 = y[:, 0], y[:, 1], y[:, 2], y[:, 3]
    between = k * (x_1 - x_2)
    return ops.stack([v_1, v_2, -k_1 * x_1 - between - d * v_1, -k_2 * x_2 + between - d * v_2], axis=1)


def draw(
    source: Source, batch: int, *, coupling: float = 0.4, damping: float = 0.02, end: float = 10.0, outputs: int = 10
) -> Problem:
    """Draw starts scattered about one mass displaced and the other at rest.

    Alone each mass takes about 2 pi for a period; the energy passes to the other one in about pi / `coupling`.
    """
    constants = torch.tensor([1.0, 1.1, coupling, damping], dtype=torch.float64)
    y0 = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64) + source.normal(batch, 4, std=0.2)
    target = source.normal(batch, 4)
    return Problem(CoupledOscillatorsField(constants), y0, output_times(end, outputs), MeanSquare(target))


COUPLED_OSCILLATORS = Family("coupled_oscillators", draw, formula)
