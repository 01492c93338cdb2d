"""A network field with the energy of its paths, by which training regularises it (Finlay et al. 2020).

Its state is a pair, which solvers of structured states get as a tuple, and it is differentiated in its times too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class RegularizedField(nn.Module):
    """z' = v = tanh(z V + t u) W, e' = |v|^2, with the state (z, e) in one tensor, e last."""

    def __init__(self, V: Tensor, u: Tensor, W: Tensor) -> None:
        super().__init__()
        self.V, self.u, self.W = nn.Parameter(V), nn.Parameter(u), nn.Parameter(W)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        velocity = torch.tanh(y[:, :-1] @ self.V + t * self.u) @ self.W
        return torch.cat([velocity, velocity.square().sum(dim=1, keepdim=True)], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held
    V, u, W = theta
    velocity = ops.tanh(y[:, :-1] @ V + u * t) @ W
    return ops.concatenate([velocity, (velocity * velocity).sum(axis=1)[:, None]], axis=1)


def draw(source: Source, batch: int, *, state: int = 8, width: int = 32, end: float = 2.0, outputs: int = 5) -> Problem:
    """Draw weights for states of `state` components and one energy, which starts at 0."""
    V, u = source.normal(state, width, std=1 / state**0.5), source.normal(width)
    W = source.normal(width, state, std=1 / width**0.5)
    y0, target = source.normal(batch, state + 1), source.normal(batch, state + 1)
    y0[:, -1] = 0.0
    t = output_times(end, outputs)
    return Problem(RegularizedField(V, u, W), y0, t, MeanSquare(target), moving_t=t, parts=(state, 1))


REGULARIZED = Family("regularized", draw, formula, moving_times=True, parts=True)
