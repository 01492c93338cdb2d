"""The device, the networks and the solves that the tests on a card share."""

import os
from itertools import pairwise

import torch
from torch import nn

import symplectic_adjoint as sa
from tests.oracle import relative_error, replay

DEVICE = torch.device(os.environ.get("GPU_TESTS_ON", "cuda"))
"""Where the tests run. With GPU_TESTS_ON=cpu those that need no card run without one, which finds slips in them."""
ON_CARD = DEVICE.type == "cuda"
AVAILABLE = not ON_CARD or torch.cuda.is_available()

T = torch.tensor([0.0, 0.35, 0.8, 1.0], dtype=torch.float64)
"""Output times. With FIXED two of them lie inside a step."""
MANY = torch.linspace(0.0, 1.0, 97, dtype=torch.float64)
"""So many output times that those inside a step are formed together."""
FIXED = {"step_size": 0.1}
STEPS = 10
EXACT = [name for name, strategy in sa.GRADIENTS.items() if strategy.exact_for_method]
REVERSED = ["mali", "reversible"]
"""Exact for steps of their own."""
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-4}
"""Relative differences of gradients that are equal but for the order of sums, as in tests of the CPU."""


class Mlp(nn.Module):
    """A network of t and y with `layers` hidden layers."""

    def __init__(self, size=16, width=64, layers=3, *, dtype=torch.float32, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        widths = [size, *[width] * layers, size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.to(DEVICE, dtype)

    def forward(self, t, y):
        for layer in self.layers[:-1]:
            y = torch.tanh(layer(y))
        return torch.cos(t) * self.layers[-1](y)


class Potential(nn.Module):
    """Minus the gradient of an energy: torch.autograd.grad in every call."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.net = Mlp(dtype=dtype)

    def forward(self, t, y):
        with torch.enable_grad():
            x = y if y.requires_grad else y.detach().requires_grad_()
            energy = self.net(t, x).square().sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=torch.is_grad_enabled())
        return -force


def start(batch=32, size=16, *, dtype=torch.float32, seed=1):
    """Return a y0 that requires a gradient."""
    y0 = torch.randn(batch, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return y0.to(DEVICE, dtype).requires_grad_()


def loss_of(ys):
    """Return a scalar to which every output contributes."""
    return (ys.sin() + 0.5 * ys.square()).mean()


def keywords_of(gradient, method="rk4", **keywords):
    """Return the keywords of a solve: gradient="mali" has a method of its own."""
    name = gradient if isinstance(gradient, str) else ""
    return {"gradient": gradient, **({} if name == "mali" else {"method": method}), **keywords}


def gradients(net, y0, t=T, **keywords):
    """Return the gradient of the loss in y0 and the parameters."""
    return torch.autograd.grad(loss_of(sa.odeint(net, y0, t, **keywords)), [y0, *net.parameters()])


def oracle(net, y0, solution, gradient, method, t=T):
    """Return that gradient by autograd over the recorded grid, in float64."""
    exact = Mlp(*shape_of(net), dtype=torch.float64)
    exact.load_state_dict({name: x.double() for name, x in net.state_dict().items()})
    pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}.get(gradient)
    tableau = sa.GRADIENTS[gradient].own_tableau or sa.METHODS[method]
    y0 = y0.detach().double().requires_grad_()
    ys = replay(exact, tableau, solution.grid, y0, t.cpu(), pair)
    return torch.autograd.grad(loss_of(ys), [y0, *exact.parameters()])


def shape_of(net):
    """Return the size, width and number of hidden layers of a network."""
    return net.layers[0].in_features, net.layers[0].out_features, len(net.layers) - 1


def worst(bars, exact):
    """Return the largest relative error among tensors."""
    return max(relative_error(a.double(), b.double()) for a, b in zip(bars, exact, strict=True))
