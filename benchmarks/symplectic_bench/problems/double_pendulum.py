"""A pendulum that hangs from a pendulum: at high energy its motion is chaotic.

Landau and Lifshitz, Mechanics, section 5, problem 1, has its Lagrangian, from which the accelerations follow. Time is
in units in which the acceleration of gravity is 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class DoublePendulumField(nn.Module):
    """The angles a, b of the two rods from the vertical; y = (a, b, a', b'), with c = a - b and M = m_1 + m_2.

    a'' = (m_2 cos c (sin b - l_1 a'^2 sin c) - m_2 l_2 b'^2 sin c - M sin a) / (l_1 D)
    b'' = (M (cos c sin a - sin b + l_1 a'^2 sin c) + m_2 l_2 b'^2 sin c cos c) / (l_2 D),    D = m_1 + m_2 sin^2 c.

    The parameters are the masses m_1, m_2 and the lengths l_1, l_2.
    """

    def __init__(self, masses: Tensor, lengths: Tensor) -> None:
        super().__init__()
        self.masses, self.lengths = nn.Parameter(masses), nn.Parameter(lengths)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        (m_1, m_2), (l_1, l_2) = self.masses, self.lengths
        angles, v = y[:, :2], y[:, 2:]
        (sin_a, sin_b), difference = angles.sin().unbind(1), angles[:, 0] - angles[:, 1]
        sin, cos, M = difference.sin(), difference.cos(), m_1 + m_2
        D = m_1 + m_2 * sin * sin
        pull_a, pull_b = l_1 * v[:, 0] * v[:, 0] * sin, m_2 * l_2 * v[:, 1] * v[:, 1] * sin
        upper = (m_2 * cos * (sin_b - pull_a) - pull_b - M * sin_a) / (l_1 * D)
        lower = (M * (cos * sin_a - sin_b + pull_a) + pull_b * cos) / (l_2 * D)
        return torch.cat([v, torch.stack([upper, lower], dim=1)], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    (m_1, m_2), (l_1, l_2) = theta
    a, b, v_a, v_b = y[:, 0], y[:, 1], y[:, 2], y[:, 3]
    sin_a, sin_b, sin, cos, M = ops.sin(a), ops.sin(b), ops.sin(a - b), ops.cos(a - b), m_1 + m_2
    D = m_1 + m_2 * sin * sin
    pull_a, pull_b = l_1 * v_a * v_a * sin, m_2 * l_2 * v_b * v_b * sin
    upper = (m_2 * cos * (sin_b - pull_a) - pull_b - M * sin_a) / (l_1 * D)
    lower = (M * (cos * sin_a - sin_b + pull_a) + pull_b * cos) / (l_2 * D)
    return ops.stack([v_a, v_b, upper, lower], axis=1)


def draw(source: Source, batch: int, *, angle: float = 2.0, end: float = 5.0, outputs: int = 10) -> Problem:
    """Draw starts at rest, scattered about both rods at `angle` from the vertical.

    From small angles it oscillates; from the default one neighbouring solutions separate by a factor of e in 3 units of
    time, on the average.
    """
    start = torch.tensor([angle, angle, 0.0, 0.0], dtype=torch.float64)
    y0 = start + source.normal(batch, 4, std=0.1)
    ones, target = torch.ones(2, dtype=torch.float64), source.normal(batch, 4)
    func = DoublePendulumField(ones, ones.clone())
    return Problem(func, y0, output_times(end, outputs), MeanSquare(target))


DOUBLE_PENDULUM = Family("double_pendulum", draw, formula)
