"""Small right-hand sides and a loss that tests share, all in float64."""

import torch
from torch import nn


class SmallNet(nn.Module):
    """Two layers that depend on time, with a parameter that is never used and one that is used twice."""

    def __init__(self, size=3, width=8, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(size, width, dtype=torch.float64)
        self.outer = nn.Linear(width, size, dtype=torch.float64)
        self.twice = nn.Parameter(torch.randn(size, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, t, y):
        drive = torch.sin(2.0 * t) * self.twice
        return self.outer(torch.tanh(self.inner(y) * torch.cos(t))) + drive - 0.1 * self.twice * y


class Rotation(nn.Module):
    """Complex weights, or their real parts, in any dtype."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex128).to(dtype))

    def forward(self, t, y):
        return torch.sin(y @ self.weight) * (1.0 + t)


class Counted(nn.Module):
    """A function that counts its calls."""

    def __init__(self, func):
        super().__init__()
        self.func = func
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.func(t, y)


def start(batch=4, size=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, size, dtype=torch.float64, generator=generator)


def weighted_loss(ys):
    """Return a scalar to which every output and component contributes differently."""
    weights = torch.linspace(0.5, 1.5, ys.numel(), dtype=ys.dtype).reshape(ys.shape)
    return (weights * ys.square()).sum() + (weights.flip(0) * ys.sin()).sum()
