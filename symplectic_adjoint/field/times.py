"""Times, as numbers or tensors."""

import math

import torch
from torch import Tensor

Time = float | Tensor
"""A time or a step size: a Python float (float64), or a 0-dim tensor if times are differentiated."""


def number(t: Time) -> float:
    """Return a time as a Python float, without its graph."""
    return t.detach().item() if isinstance(t, Tensor) else t


def next_number(x: Tensor, direction: float) -> Tensor:
    """Return the floating point number next to x in its dtype, up or down by the sign of direction."""
    towards = torch.full_like(x, math.copysign(math.inf, direction))
    if x.dtype != torch.float16:
        return torch.nextafter(x, towards)
    info = torch.finfo(x.dtype)  # torch has no nextafter for float16
    return (x.double() + math.copysign(max(abs(x.item()) * info.eps, info.tiny), direction)).to(x.dtype)
