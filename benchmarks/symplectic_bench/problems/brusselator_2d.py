"""The Brusselator on a periodic square: a large stiff problem, whose Jacobian is sparse and better not formed.

Hairer and Wanner, Solving Ordinary Differential Equations II, 1996, section IV.10, whose rates, diffusion, starts and
periodic boundary these are. Without boundaries every point has the same four neighbours, and two shifts for each
direction are the Laplacian. Their injection into a disc, from t = 1.1 on, is omitted, so that the field is smooth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.brusselator import BrusselatorReaction, reaction
from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.periodic import second_difference, second_difference_formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, Split, output_times


class SquareDiffusion(nn.Module):
    """u' = alpha (u_xx + u_yy), and likewise v, on the unit square by central differences, alpha the parameter."""

    def __init__(self, alpha: float, points: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha, dtype=torch.float64))
        self.points = points

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        fields, dx = y.unflatten(1, (2, self.points, self.points)), 1 / self.points
        return (self.alpha * (second_difference(fields, dx, dim=2) + second_difference(fields, dx, dim=3))).flatten(1)


def diffusion(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the diffusion in any arithmetic."""
    del t
    n = held["points"]
    fields = y.reshape(y.shape[0], 2, n, n)
    across, up = (second_difference_formula(ops, fields, 1 / n, axis) for axis in (2, 3))
    return (theta[1] * (across + up)).reshape(y.shape)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    return reaction(ops, theta, held, t, y) + diffusion(ops, theta, held, t, y)


def draw(source: Source, batch: int, *, points: int = 8, end: float = 1.0, outputs: int = 1) -> Problem:
    """Draw the published starts 22 y (1 - y)^(3/2) and 27 x (1 - x)^(3/2), with a little noise, on `points` squared.

    Here a = 1, b = 3.4, alpha = 0.1. Stability limits explicit methods to steps of about 0.4 dx^2 / alpha.
    """
    x = torch.arange(points, dtype=torch.float64) / points
    hill = x * (1 - x) ** 1.5
    u, v = 22 * hill.expand(points, points), 27 * hill[:, None].expand(points, points)
    y0 = torch.stack([u, v]).flatten() + source.normal(batch, 2 * points**2, std=0.01)
    func = Split(BrusselatorReaction(torch.tensor([1.0, 3.4], dtype=torch.float64)), SquareDiffusion(0.1, points))
    return Problem(func, y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2 * points**2)))


BRUSSELATOR_2D = Family("brusselator_2d", draw, formula, split=(reaction, diffusion))
