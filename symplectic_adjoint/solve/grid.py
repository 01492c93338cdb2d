"""The grid that a solve stepped on: what is recorded of it, exactly as it was used."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

CONSTANT = -1
"""pinned_to of a step whose end is a given time that is no entry of t."""
FREE = -2
"""pinned_to of a step that ends where its step size takes it."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step to take: from t by h to t_end, in float64. pinned_to is an index into t, CONSTANT or FREE.

    open_start, open_end: func jumps there, and is called with a time just inside the step.
    """

    t: float
    h: float
    t_end: float
    pinned_to: int
    open_start: bool = False
    open_end: bool = False


@dataclass(frozen=True)
class Grid:
    """A solve's steps and outputs, enough for anyone to replay it. All on the CPU; floats are float64.

    t, h, pinned_to have one entry a step, output_step and output_sigma one an output. Output j is
    y(sigma) of step output_step[j] with sigma = output_sigma[j]; it is y+ itself where that step is
    pinned to j. ys[0] is y0: its step is -1. open_start and open_end, one entry a step, say where func
    was called with the next number inside the step instead of its end, because it jumps there.
    """

    t: Tensor
    h: Tensor
    pinned_to: Tensor
    output_step: Tensor
    output_sigma: Tensor
    open_start: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    open_end: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def __post_init__(self) -> None:
        for name in ("open_start", "open_end"):
            if len(getattr(self, name)) != len(self.t):  # not given: func jumps nowhere
                object.__setattr__(self, name, torch.zeros(len(self.t), dtype=torch.bool))

    @staticmethod
    def from_plans(plans: Sequence[StepPlan], output_step: Sequence[int], output_sigma: Sequence[float]) -> "Grid":
        return Grid(
            t=torch.tensor([p.t for p in plans], dtype=torch.float64),
            h=torch.tensor([p.h for p in plans], dtype=torch.float64),
            pinned_to=torch.tensor([p.pinned_to for p in plans], dtype=torch.int64),
            output_step=torch.tensor(output_step, dtype=torch.int64),
            output_sigma=torch.tensor(output_sigma, dtype=torch.float64),
            open_start=torch.tensor([p.open_start for p in plans], dtype=torch.bool),
            open_end=torch.tensor([p.open_end for p in plans], dtype=torch.bool),
        )
