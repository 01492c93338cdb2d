"""The Brusselator, an oscillating reaction, with diffusion along a periodic interval: stiff as the grid is fine.

Lefever and Nicolis, Chemical instabilities and sustained oscillations, Journal of Theoretical Biology, 1971; as a
stiff problem in Hairer and Wanner, Solving Ordinary Differential Equations II, 1996, section IV.10. Theirs has fixed
ends; periodic here, so that one stencil serves every point, as in their problem in two dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.periodic import second_difference, second_difference_formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, Split, output_times

WIDTH = 1.0
"""Length of the periodic interval."""


class BrusselatorReaction(nn.Module):
    """u' = a + u^2 v - (b + 1) u,  v' = b u - u^2 v at every point, with feeds = (a, b) the parameters; y = (u, v)."""

    def __init__(self, feeds: Tensor) -> None:
        super().__init__()
        self.feeds = nn.Parameter(feeds)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        u, v = y.chunk(2, dim=1)
        a, b = self.feeds
        made = u * u * v - b * u
        return torch.cat([a + made - u, -made], dim=1)


class BrusselatorDiffusion(nn.Module):
    """u' = alpha u_xx,  v' = alpha v_xx by central differences, with alpha the parameter."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        fields = y.unflatten(1, (2, -1))
        return (self.alpha * second_difference(fields, WIDTH / fields.shape[2], dim=2)).flatten(1)


def reaction(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the reaction in any arithmetic."""
    del held, t
    u, v = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
    a, b = theta[0]
    made = u * u * v - b * u
    return ops.concatenate([a + made - u, -made], axis=1)


def diffusion(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the diffusion in any arithmetic."""
    del held, t
    fields = y.reshape(y.shape[0], 2, -1)
    return (theta[1] * second_difference_formula(ops, fields, WIDTH / fields.shape[2], axis=2)).reshape(y.shape)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    return reaction(ops, theta, held, t, y) + diffusion(ops, theta, held, t, y)


def draw(source: Source, batch: int, *, points: int = 32, end: float = 2.0, outputs: int = 4) -> Problem:
    """Draw waves of random phase about u = 1, v = 3, at `points` grid points, with a = 1, b = 3, alpha = 1/50.

    Stability limits explicit methods to steps of about 0.8 dx^2 / alpha: twice the points take four times the steps.
    """
    x = torch.arange(points, dtype=torch.float64) / points + source.normal(batch, 1)
    y0 = torch.cat([1 + (2 * torch.pi * x).sin(), 3 + source.normal(batch, points, std=0.01)], dim=1)
    func = Split(BrusselatorReaction(torch.tensor([1.0, 3.0], dtype=torch.float64)), BrusselatorDiffusion(1 / 50))
    return Problem(func, y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2 * points)))


BRUSSELATOR = Family("brusselator", draw, formula, split=(reaction, diffusion))
