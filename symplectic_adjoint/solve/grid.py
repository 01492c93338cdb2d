"""The grid of a solve, recorded exactly as it was used."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

CONSTANT = -1
"""pinned_to of a step that ends at a prescribed time that is not an entry of t."""
FREE = -2
"""pinned_to of a step whose end is determined by its step size."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step to take from t to t_end = t + h (signed), in float64. pinned_to is an index into t, CONSTANT or FREE.

    open_start, open_end: whether func jumps at that end, and is called with a time just inside the step.
    """

    t: float
    h: float
    t_end: float
    pinned_to: int
    open_start: bool = False
    open_end: bool = False


@dataclass(frozen=True)
class Grid:
    """The accepted steps and the outputs of a solve: all that is needed to replay it. On the CPU, times in float64.

    t, h, pinned_to, open_start and open_end have one entry per step, output_step and output_sigma one per output.
    Output j is y(sigma) of step output_step[j] at sigma = output_sigma[j], or y+ itself if that step is pinned to j.
    ys[0] is y0, and its step is -1. Of equal entries of t, pinned_to is the first; the others have its step, sigma = 1
    and the same y+. open_start, open_end: whether func jumps at that end of the step; there it was called with the
    adjacent number inside the step.
    """

    t: Tensor
    h: Tensor
    pinned_to: Tensor
    output_step: Tensor
    output_sigma: Tensor
    open_start: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool, device="cpu"))
    open_end: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool, device="cpu"))

    def __post_init__(self) -> None:
        for name in ("open_start", "open_end"):
            if len(getattr(self, name)) != len(self.t):  # left out if func has no jumps
                object.__setattr__(self, name, torch.zeros(len(self.t), dtype=torch.bool, device="cpu"))

    @staticmethod
    def from_plans(plans: Sequence[StepPlan], output_step: Sequence[int], output_sigma: Sequence[float]) -> "Grid":
        """Return the grid of these accepted steps, with the step and the sigma of each output."""
        return Grid(
            t=torch.tensor([p.t for p in plans], dtype=torch.float64, device="cpu"),
            h=torch.tensor([p.h for p in plans], dtype=torch.float64, device="cpu"),
            pinned_to=torch.tensor([p.pinned_to for p in plans], dtype=torch.int64, device="cpu"),
            output_step=torch.tensor(output_step, dtype=torch.int64, device="cpu"),
            output_sigma=torch.tensor(output_sigma, dtype=torch.float64, device="cpu"),
            open_start=torch.tensor([p.open_start for p in plans], dtype=torch.bool, device="cpu"),
            open_end=torch.tensor([p.open_end for p in plans], dtype=torch.bool, device="cpu"),
        )
