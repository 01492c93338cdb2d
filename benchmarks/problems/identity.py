"""The field that returns its state: what a solve of it takes is the solver's own."""

import torch
from torch import Tensor, nn

from benchmarks.problems.problem import Family, Problem, Source, output_times


class IdentityField(nn.Module):
    """y' = y, given back as it came: not even a copy is made."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return y

    def solution(self, y0: Tensor, t: Tensor) -> Tensor:
        """e^t y0 for every time of t, differentiable: (len(t), batch, dim)."""
        return torch.stack([y0 * torch.exp(time) for time in t])


class Projection(nn.Module):
    """The sum of all outputs times one direction: neither it nor its gradient holds anything for each output."""

    direction: Tensor

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.register_buffer("direction", direction)

    def forward(self, ys: Tensor) -> Tensor:
        return (ys.sum(dim=0) * self.direction).sum() / ys.numel()


def draw(source: Source, batch: int, *, dim: int = 8, end: float = 1.0, outputs: int = 1) -> Problem:
    """No parameters; the direction and y0 are drawn."""
    y0, direction = source.normal(batch, dim), source.normal(batch, dim)
    return Problem(IdentityField(), y0, output_times(end, outputs), Projection(direction))


IDENTITY = Family("identity", draw)
