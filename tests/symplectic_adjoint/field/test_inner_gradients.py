"""A func that differentiates inside, where autograd runs in a thread of its own: as on a card, imitated here."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from symplectic_adjoint import odeint
from symplectic_adjoint._torch_internals import nodes_made

T = torch.tensor([0.0, 0.5], dtype=torch.float64)
STEPS = {"method": "rk4", "options": {"step_size": 0.25}}
Y = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)


@pytest.fixture
def differentiate():
    """torch.autograd.grad as on a card: in a thread that numbers its own nodes, unless that is turned off."""
    with ThreadPoolExecutor(1) as device_thread:
        x = torch.ones(1, requires_grad=True)
        while nodes_made() < 1000:
            x.sin()

        def grad(*args, **keywords):
            if not torch._C._is_multithreading_enabled():
                return torch.autograd.grad(*args, **keywords)
            return device_thread.submit(torch.autograd.grad, *args, **keywords).result()

        yield grad


class Potential(nn.Module):
    def __init__(self, grad):
        super().__init__()
        self.lin, self.grad = nn.Linear(3, 3, dtype=torch.float64), grad

    def forward(self, t, y):
        return -force(self.grad, y, self.lin.weight)


def force(grad, y, weight):
    with torch.enable_grad():
        x = y if y.requires_grad else y.detach().requires_grad_()
        energy = torch.tanh(x @ weight).square().sum()
        return grad(energy, x, create_graph=torch.is_grad_enabled())[0]


def gradients(func, params, **keywords):
    y = Y.clone().requires_grad_()
    return torch.autograd.grad(odeint(func, y, T, **STEPS, **keywords)[-1].square().sum(), [y, *params])


def require_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("keywords", [{"capture": True}, {"gradient": "symplectic"}, {"gradient": "aca"}], ids=str)
def test_nodes_of_another_thread_are_not_taken_for_older_ones(differentiate, keywords):
    net = Potential(differentiate)
    weight = (net.lin.weight,)
    require_equal(gradients(net, weight, **keywords), gradients(net, weight, gradient="backprop"))


def test_a_leaf_behind_them_is_adopted_wherever_it_is_held(differentiate):
    weight = torch.eye(3, dtype=torch.float64).requires_grad_()
    held = [[[[[[[[[[weight]]]]]]]]]]  # too deep to be found but by a graph

    def func(t, y):
        return -force(differentiate, y, held[0][0][0][0][0][0][0][0][0][0])

    require_equal(gradients(func, (weight,)), gradients(func, (weight,), gradient="backprop"))


def test_autograd_has_its_threads_back_after_a_solve(differentiate):
    gradients(Potential(differentiate), ())
    assert torch._C._is_multithreading_enabled()
