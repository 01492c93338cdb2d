"""torchdyn: it has a solver of its own, so its vector fields are solved by odeint."""

import pytest
import torch
import torchdiffeq  # the name that replace_torchdiffeq(rebind=True) sets
from torch import nn
from torchdyn.core import NeuralODE
from torchdyn.nn import DataControl, DepthCat

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


def plain():
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))


def with_depth():
    return nn.Sequential(DepthCat(1), nn.Linear(3, 8), nn.Tanh(), DepthCat(1), nn.Linear(9, 2))


def with_data_control():
    return nn.Sequential(DataControl(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


@pytest.mark.parametrize("make", [plain, with_depth, with_data_control])
def test_a_vector_field_of_a_neural_ode(compare, make):
    """DepthCat and DataControl are given the time and the start as attributes, by torchdyn's DEFunc."""

    def client(odeint):
        torch.manual_seed(0)
        x = torch.randn(4, 2, requires_grad=True)
        model = NeuralODE(make(), sensitivity="autograd", solver="rk4")
        model._prep_integration(x, T)
        odeint(model.vf, x, T, method="rk4")[-1].square().sum().backward()
        return gradients_of(model, x=x)

    compare(lambda: client(torchdiffeq.odeint_adjoint), lambda: client(torchdiffeq.odeint))
