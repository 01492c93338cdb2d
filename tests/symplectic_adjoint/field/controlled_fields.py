"""A network that a control steers, and how it is solved."""

import pytest
import torch
from torch import nn

from tests.gradients import STANDARD

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
FIXED = {"method": "rk4"}
every_gradient = pytest.mark.parametrize("gradient", STANDARD)


def slope(net, y, u):
    return torch.tanh(net(torch.cat([y, torch.tensor([u], dtype=torch.float64)])))


def make_net():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()
