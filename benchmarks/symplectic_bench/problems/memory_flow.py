"""A gradient flow with exponentially fading memory.

Kalita and Zgliczynski, Stability of phase portrait for a gradient ODE with memory, arXiv:2406.00910, 2024. With an
exponential kernel the integral over the past becomes a second state, so the equation has no delay.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class MemoryFlowField(nn.Module):
    """x' = -grad V(x) + eps m,  m' = (x - m) / tau, in the plane, y = (x, m).

    m(t) is the mean of x(s) over the past, weighted by exp((s - t) / tau). V(x) = a (x_1^2 - 1)^2 / 4 + b x_2^2 / 2 is
    a double well. memory = (eps, tau) and well = (a, b) are the parameters. For 0 <= eps < b solutions converge to
    x_1^2 = 1 + eps / a, x_2 = 0, m = x, which tend to the wells of V as eps goes to 0.
    """

    def __init__(self, memory: Tensor, well: Tensor) -> None:
        super().__init__()
        self.memory, self.well = nn.Parameter(memory), nn.Parameter(well)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        (eps, tau), (a, b) = self.memory, self.well
        x, m = y[:, :2], y[:, 2:]
        first, second = x[:, 0], x[:, 1]
        slope = torch.stack([a * first * (first * first - 1), b * second], dim=1)
        return torch.cat([eps * m - slope, (x - m) / tau], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    (eps, tau), (a, b) = theta
    x, m = y[:, :2], y[:, 2:]
    first, second = x[:, 0], x[:, 1]
    slope = ops.stack([a * first * (first * first - 1), b * second], axis=1)
    return ops.concatenate([eps * m - slope, (x - m) / tau], axis=1)


def draw(
    source: Source, batch: int, *, eps: float = 0.5, tau: float = 2.0, end: float = 10.0, outputs: int = 10
) -> Problem:
    """Draw starts in both basins, each with a memory m drawn independently of x."""
    y0 = source.normal(batch, 4)
    memory, well = torch.tensor([eps, tau], dtype=torch.float64), torch.tensor([1.0, 1.5], dtype=torch.float64)
    return Problem(MemoryFlowField(memory, well), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 4)))


MEMORY_FLOW = Family("memory_flow", draw, formula)
