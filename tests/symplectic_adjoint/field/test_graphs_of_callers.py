"""A func that relies on its caller for grad mode: torch.autograd.grad or a checkpoint inside, without enable_grad()."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import symplectic_adjoint as sa
from tests.fields import weighted_loss
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    LOOSE,
    T,
    assert_as_backprop,
    every_gradient,
    losing_gradients,
)

ADAPTIVE = {"method": "dopri5", **LOOSE}


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        for k, p in enumerate(self.net.parameters()):
            nn.init.normal_(p, generator=torch.Generator().manual_seed(k))

    def forward(self, t, y):
        return torch.autograd.grad(torch.tanh(self.net(y)).sum(), y, create_graph=True)[0]


class Flow(Energy):
    """A continuous normalizing flow, with the exact trace."""

    def forward(self, t, state):
        y, _ = state
        f = torch.tanh(self.net(y)) * y
        rows = [torch.autograd.grad(f[:, i].sum(), y, create_graph=True)[0][:, i] for i in range(2)]
        return f, -sum(rows)


class Recomputed(Energy):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, t, y):
        return checkpoint(lambda y: torch.tanh(self.net(y)) * y, y, use_reentrant=self.reentrant)


def start(requires_grad=True):
    return torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(3, 2).requires_grad_(requires_grad)


def ys_of(func, y0, **keywords):
    if isinstance(func, Flow):
        ys = sa.odeint(func, (y0, torch.zeros(3, dtype=torch.float64)), T, **keywords)
        return torch.cat([ys[0], ys[1][..., None]], -1)
    return sa.odeint(func, y0, T, **keywords)


@every_gradient
@pytest.mark.parametrize("keywords", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("requires_grad", [True, False], ids=["y0 that requires a gradient", "constant y0"])
@pytest.mark.parametrize("kind", [Energy, Flow])
def test_func_may_differentiate_by_y(kind, requires_grad, keywords, gradient):
    func, y0 = kind(), start(requires_grad)
    inputs = (y0, *func.parameters()) if requires_grad else tuple(func.parameters())
    assert_as_backprop(lambda g, p: ys_of(func, y0, gradient=g, **keywords), inputs[:-1], gradient)


@pytest.mark.parametrize("keywords", [{"method": "kvaerno5"}, {**FIXED, "capture": True}, {**FIXED, "capture": "auto"}])
def test_also_in_implicit_methods_and_programs(keywords):
    func, y0 = Energy(), start()
    inputs = (y0, *list(func.parameters())[:-1])

    def solution(gradient, params):
        given = {**keywords, "capture": False} if gradient == "backprop" else keywords
        return ys_of(func, y0, gradient=gradient, **given)

    assert_as_backprop(solution, inputs, "symplectic")


def test_also_under_no_grad_with_plain_values():
    func, y0 = Energy(), start()
    with torch.no_grad():
        ys = ys_of(func, y0, **FIXED)
    assert not ys.requires_grad
    torch.testing.assert_close(ys, ys_of(func, y0, **FIXED).detach())


def test_also_where_nothing_requires_a_gradient():
    func = Energy().requires_grad_(False)
    assert not ys_of(func, start(False), **FIXED).requires_grad


def test_also_with_second_derivatives():
    def second(gradient):
        func, y0 = Energy(), start()
        (first,) = torch.autograd.grad(
            weighted_loss(ys_of(func, y0, gradient=gradient, **FIXED)), y0, create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), y0)[0]

    torch.testing.assert_close(second("symplectic"), second("backprop"), rtol=1e-10, atol=1e-12)


def test_one_call_shows_it():
    func, calls = Energy(), []
    func.register_forward_pre_hook(lambda m, args: calls.append(torch.is_grad_enabled()))
    solution = sa.solve(func, start(), T, **FIXED)
    assert calls.count(False) == 1
    assert calls.count(True) == solution.stats.f_calls_forward


def test_an_error_that_remains_is_raised_as_it_was():
    frozen = torch.ones(2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="differentiated Tensors does not require grad"):
        sa.odeint(lambda t, y: torch.autograd.grad(y.sum(), frozen)[0] * y, start(), T, **FIXED)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, in calls without a graph
@losing_gradients
def test_a_reentrant_checkpoint_is_refused_with_what_to_do(gradient):
    with pytest.raises(sa.UnsupportedCombination, match=r"use_reentrant=False, or use gradient=\"backprop\""):
        ys_of(Recomputed(True), start(), gradient=gradient, **FIXED).sum().backward()


def test_a_reentrant_checkpoint_is_refused_where_its_cost_is_measured():
    with pytest.raises(sa.UnsupportedCombination, match="use_reentrant=False"):
        ys_of(Recomputed(True), start(), gradient="auto", **FIXED)


@every_gradient
def test_another_checkpoint_has_its_gradient(gradient):
    func, y0 = Recomputed(False), start()
    inputs = (y0, *func.parameters())
    assert_as_backprop(lambda g, p: ys_of(func, y0, gradient=g, **FIXED), inputs, gradient)
