"""Stiff right-hand sides that tests share, all in float64."""

import torch
from torch import nn

from tests.fields import SmallNet


class StiffLinear(nn.Module):
    """dy/dt = A y + sin(t), with coupled components of rates about -1, -30 and -200; 1, 30 and 200 for direction=-1."""

    def __init__(self, direction=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        coupling = 0.1 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
        self.A = nn.Parameter(direction * (coupling - torch.diag(torch.tensor([1.0, 30.0, 200.0]).double())))

    def forward(self, t, y):
        return y @ self.A.T + torch.sin(t)


class VanDerPol(nn.Module):
    """x'' = mu (1 - x^2) x' - x. Hairer and Wanner, Solving Ordinary Differential Equations II (1996), eq. IV.1.5'."""

    START = torch.tensor([2.0, 0.0], dtype=torch.float64)

    def __init__(self, mu):
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu, dtype=torch.float64))

    def forward(self, t, y):
        x, v = y.unbind(-1)
        return torch.stack([v, self.mu * (1.0 - x * x) * v - x], -1)


class Robertson(nn.Module):
    """Three reactions. Hairer and Wanner, Solving Ordinary Differential Equations II (1996), eq. IV.1.4."""

    START = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

    def __init__(self):
        super().__init__()
        self.rates = nn.Parameter(torch.tensor([0.04, 3e7, 1e4], dtype=torch.float64))

    def forward(self, t, y):
        a, b, c = y.unbind(-1)
        slow, fast, back = self.rates[0] * a, self.rates[1] * b * b, self.rates[2] * b * c
        return torch.stack([back - slow, slow - back - fast, fast], -1)


class Hires(nn.Module):
    """Eight concentrations. Hairer and Wanner, Solving Ordinary Differential Equations II (1996), eq. IV.10.4."""

    START = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057], dtype=torch.float64)

    def __init__(self):
        super().__init__()
        self.binding = nn.Parameter(torch.tensor(280.0, dtype=torch.float64))

    def forward(self, t, y):
        a, b, c, d, e, f, g, h = y.unbind(-1)
        bound = self.binding * f * h
        rates = [-1.71 * a + 0.43 * b + 8.32 * c + 0.0007, 1.71 * a - 8.75 * b, -10.03 * c + 0.43 * d + 0.035 * e]
        rates += [8.32 * b + 1.71 * c - 1.12 * d, -1.745 * e + 0.43 * (f + g)]
        rates += [-bound + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g, bound - 1.81 * g, -bound + 1.81 * g]
        return torch.stack(rates, -1)


class CoupledState(nn.Module):
    """A tuple or dict of a state and a number for each sample that it drives."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, t, state):
        a, b = state.values() if isinstance(state, dict) else state
        k = self.net(t, a) - 5.0 * a * b[:, None]
        rates = k, k.square().sum(-1) - 20.0 * b
        return dict(zip(state, rates, strict=True)) if isinstance(state, dict) else rates
