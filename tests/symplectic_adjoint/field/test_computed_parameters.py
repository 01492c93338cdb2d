"""Tensors computed from a parameter, before the solve or by autograd inside func, pass the gradient on to it."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    LOOSE,
    T,
    assert_as_backprop,
    every_gradient,
    leaf,
    solve,
)


class TestAnOutsideGraphOfAModulesOwnParameter:
    """A tensor computed from a parameter before the solve: autograd passes through it as often as func uses it."""

    class Cached(nn.Module):
        def __init__(self, compute):
            super().__init__()
            self.weight, self.other = nn.Parameter(leaf(3)), nn.Parameter(leaf(3, seed=1))
            self.compute = compute

        def prepare(self):
            self.cached = self.compute(self.weight)
            return self

        def forward(self, t, y):
            return torch.tanh(self.cached * y) + self.other * t * self.weight

    @every_gradient
    @pytest.mark.parametrize("compute", [lambda w: 2.0 * w, torch.exp, lambda w: torch.linalg.norm(w) * w.sin()])
    def test_passes_the_gradient_on_to_it(self, compute, gradient):
        net = self.Cached(compute)
        assert_as_backprop(lambda g, params: solve(net.prepare(), gradient=g), [net.weight, net.other], gradient)

    @every_gradient
    def test_serves_the_loss_too(self, gradient):
        net = self.Cached(torch.exp)

        def solution(g, params):
            ys = solve(net.prepare(), gradient=g)
            return ys * net.cached.sum()

        assert_as_backprop(solution, [net.weight], gradient)

    @pytest.mark.parametrize("gradient", EXACT)
    def test_serves_second_derivatives(self, gradient):
        net, y0 = self.Cached(torch.exp), start().requires_grad_()

        def second(gradient):
            (first,) = torch.autograd.grad(
                weighted_loss(solve(net.prepare(), y0, gradient=gradient)), y0, create_graph=True
            )
            return torch.autograd.grad(first.square().sum(), [net.weight, net.other])

        for a, b in zip(second(gradient), second("backprop"), strict=True):
            assert relative_error(a, b) < 1e-11  # one order of derivatives more

    @every_gradient
    def test_may_be_used_late_only(self, gradient):
        class Late(self.Cached):
            def forward(self, t, y):
                return torch.tanh(self.cached.square() * y) if t > 0.5 else self.other * y

        net = Late(torch.exp)
        assert_as_backprop(
            lambda g, params: solve(net.prepare(), gradient=g, **FIXED), [net.weight, net.other], gradient
        )


class TestAutogradInsideFunc:
    """Derivatives of its own network that func computes."""

    class Energy(nn.Module):
        """y' = -grad E(y)."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()

        def forward(self, t, y):
            with torch.enable_grad():
                y = y if y.requires_grad else y.detach().requires_grad_()
                return -torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)[0]

    class Flow(nn.Module):
        """(y, log density)' = (f, -e^T df/dy e): Hutchinson's trace with a probe of its own."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = SmallNet()
            self.register_buffer("probe", torch.randn(4, 3, dtype=torch.float64).sign())

        def forward(self, t, state):
            y, _ = state
            with torch.enable_grad():
                y = y if y.requires_grad else y.detach().requires_grad_()
                dy = self.net(t, y)
                (row,) = torch.autograd.grad(dy, y, self.probe, create_graph=True)
            return dy, -(row * self.probe).sum(1)

    @every_gradient
    def test_gives_the_slope_of_an_energy(self, gradient):
        net, y0 = self.Energy(), start().requires_grad_()
        inputs = [y0, net.energy[0].weight, net.energy[2].weight]
        assert_as_backprop(lambda g, params: solve(net, y0, gradient=g), inputs, gradient)

    @every_gradient
    def test_gives_a_trace_by_a_probe(self, gradient):
        net, y0 = self.Flow(), start().requires_grad_()

        def solution(g, params):
            ys, logs = sa.odeint(net, (y0, torch.zeros(4, dtype=torch.float64)), T, gradient=g, **LOOSE)
            return torch.cat([ys.flatten(), logs.flatten()])

        inputs = [y0, net.net.inner.weight, net.net.outer.weight, net.net.twice]
        assert_as_backprop(solution, inputs, gradient)
        assert relative_error(solution(gradient, ()), solution("backprop", ())) == 0.0

    @every_gradient
    def test_gives_an_exact_divergence_by_torch_func(self, gradient):
        net = SmallNet()

        def func(t, state):
            y, _ = state
            jacobian = torch.func.vmap(torch.func.jacrev(lambda x: net(t, x)))(y)
            return net(t, y), -jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)

        def solution(g, params):
            y0 = start(), torch.zeros(4, dtype=torch.float64)
            return sa.odeint(func, y0, T, gradient=g, params=params, **LOOSE)[1]

        inputs = [net.inner.weight, net.outer.weight]
        assert_as_backprop(solution, inputs, gradient, params=(*net.parameters(),))
