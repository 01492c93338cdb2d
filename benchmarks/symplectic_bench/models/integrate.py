"""The interface of the solver that a model with fields takes."""

from typing import Protocol

import torch
from torch import Tensor, nn

UNIT_TIME = torch.tensor([0.0, 1.0], dtype=torch.float64)
"""The times of a field that is solved from 0 to 1."""


class Integrate(Protocol):
    """A differentiable solver."""

    def __call__(self, func: nn.Module, y0: Tensor, t: Tensor, /) -> Tensor:
        """Return ys, (len(t), *y0.shape), of y' = func(t, y) from y0 at t[0]; t is float64 on the CPU."""
        ...
