"""A linear system whose equilibrium switches at known times: a field with jumps and a known solution."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class ForcedField(nn.Module):
    """y' = A (y - u_k) for each row y of the batch, k the number of switches up to t, A and u the parameters."""

    switches: Tensor

    def __init__(self, A: Tensor, levels: Tensor, switches: Tensor) -> None:
        super().__init__()
        self.A, self.levels = nn.Parameter(A), nn.Parameter(levels)
        self.register_buffer("switches", switches)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return (y - self.levels[(self.switches <= t).sum()]) @ self.A.T


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic in which t can be compared: t must be a number, not a symbol."""
    A, levels = theta
    return (y - levels[sum(s <= ops.plain(t) for s in held["switches"])]) @ A.T


def solution(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y0: Array) -> Array:
    """Return y(t), piece by piece: y(t) = u + expm(A (t - s)) (y(s) - u), with s the start of the piece."""
    A, levels = theta
    begun = [s for s in held["switches"] if s < ops.plain(t)]
    times, y = [0.0, *begun, t], y0
    for u, (s, e) in zip(levels, pairwise(times), strict=False):
        y = u + (y - u) @ ops.expm(A * (e - s)).T
    return y


def draw(source: Source, batch: int, *, pieces: int = 4, end: float = 4.0, outputs: int = 10) -> Problem:
    """Draw a damped rotation about a new point in each of `pieces` pieces. The first piece is shorter."""
    A = torch.tensor([[-0.5, 3.0], [-3.0, -0.5]], dtype=torch.float64)
    levels = source.normal(pieces, 2)
    # Off the output times, so that no step lands on a switch by chance. Rounded to float32, so that a float32 copy of
    # the field switches at exactly the times that the solver is given.
    switches = ((torch.arange(1, pieces) - 2**-0.5 / 2) * end / pieces).float().double()
    y0, target = source.normal(batch, 2), source.normal(batch, 2)
    func = ForcedField(A, levels, switches)
    return Problem(func, y0, output_times(end, outputs), MeanSquare(target), jumps=tuple(switches.tolist()))


FORCED = Family("forced", draw, formula, solution, jumps=True)
