"""Three bodies under gravity, whose masses are to be estimated from their trajectories.

Zhuang, Dvornek, Li, Tatikonda, Papademetris and Duncan, Adaptive Checkpoint Adjoint Method for Gradient Estimation in
Neural ODE, ICML 2020. The masses and times are theirs; the motion is in the plane here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

BODIES = 3


class ThreeBodyField(nn.Module):
    """x_i' = v_i,  v_i' = sum_{j != i} m_j (x_j - x_i) / |x_j - x_i|^3, with the masses m the parameters.

    y, (batch, 12), holds the three positions in the plane, then the three velocities.
    """

    own: Tensor

    def __init__(self, masses: Tensor) -> None:
        super().__init__()
        self.masses = nn.Parameter(masses)
        # Added to squared distances: 1 for a body and itself, so that its pull on itself is 0 / 1 = 0.
        self.register_buffer("own", torch.eye(BODIES, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        x, v = y[:, : 2 * BODIES].unflatten(1, (BODIES, 2)), y[:, 2 * BODIES :]
        to = x[:, None] - x[:, :, None]  # (batch, i, j, 2)
        squared = to.square().sum(dim=3) + self.own
        pulls = to * (self.masses / (squared * squared.sqrt())).unsqueeze(3)
        return torch.cat([v, pulls.sum(dim=2).flatten(1)], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    (masses,) = theta
    x = [y[:, 2 * i : 2 * i + 2] for i in range(BODIES)]

    def pull(i: int, j: int) -> Array:
        to = x[j] - x[i]
        squared = (to * to).sum(axis=1, keepdims=True)
        return masses[j] * to / (squared * ops.sqrt(squared))

    accelerations = [pull(i, (i + 1) % BODIES) + pull(i, (i + 2) % BODIES) for i in range(BODIES)]
    return ops.concatenate([y[:, 2 * BODIES :], *accelerations], axis=1)


def draw(source: Source, batch: int, *, end: float = 1.0, outputs: int = 10) -> Problem:
    """Draw starts scattered about a rotating equilateral triangle of radius 1.

    It rotates too slowly to be stable; no two bodies come close by t = 1.
    """
    angle = 2 * torch.pi * torch.arange(BODIES, dtype=torch.float64) / BODIES
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    v = 0.5 * torch.stack([-angle.sin(), angle.cos()], dim=1)
    y0 = torch.cat([x.flatten(), v.flatten()]) + source.normal(batch, 4 * BODIES, std=0.1)
    masses = torch.tensor([1.1, 1.1, 0.9], dtype=torch.float64)
    target = source.normal(batch, 4 * BODIES)
    return Problem(ThreeBodyField(masses), y0, output_times(end, outputs), MeanSquare(target))


THREE_BODY = Family("three_body", draw, formula)
