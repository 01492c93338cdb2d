"""How a network with a field in it is solved: by whoever is asked to."""

from typing import Protocol

import torch
from torch import Tensor, nn

UNIT_TIME = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Integrate(Protocol):
    def __call__(self, func: nn.Module, y0: Tensor, t: Tensor, /) -> Tensor:
        """ys, (len(t), *y0.shape), of y' = func(t, y) from y0 at t[0]; t is float64 on the CPU. Differentiable."""
        ...
