"""The problem of most probes, dy/dt = -rate y, whose answers are known in closed form."""

import math

import torch
from torch import Tensor, nn

RATE = 0.7


class Decay(nn.Module):
    """dy/dt = -rate y, with the rate as its parameter, and a count of its calls."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(RATE, dtype=dtype))
        self.called = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        self.called += 1
        return -self.rate * y


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return y0, (2, 2), a leaf."""
    return torch.tensor([[1.0, 2.0], [0.5, 1.5]], dtype=dtype).requires_grad_()


def times(*given: float) -> Tensor:
    """Return the times, 0 and 1 by default."""
    return torch.tensor(given or (0.0, 1.0), dtype=torch.float64)


Y0_SUM = 5.0
LEFT = math.exp(-RATE)
"""exp(-rate): the part of y0 that is left at time 1."""
END_SUM = Y0_SUM * LEFT
"""The sum of the state at time 1; its derivative by the rate is -END_SUM, by t[-1] it is -rate END_SUM."""
