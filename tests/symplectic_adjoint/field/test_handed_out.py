"""Values that func puts where its caller reads them after the solve, such as the terms of a penalty."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import start
from tests.symplectic_adjoint.field.parameter_gradients import FIXED, every_gradient, leaf, losing_gradients, solve


class Penalized(nn.Module):
    """A network that hands out a penalty."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3, dtype=torch.float64)
        self.every, self.by_call, self.total, self.last = [], {}, 0.0, None
        self.held = SimpleNamespace(last=None, every=[])

    def forward(self, t, y):
        k = torch.tanh(self.layer(y))
        self.put(k.square().mean(), k)
        return k


class Appended(Penalized):
    def put(self, penalty, k):
        self.every.append(penalty)

    def penalty(self):
        return sum(self.every)


class ByCall(Penalized):
    def put(self, penalty, k):
        self.by_call[len(self.by_call)] = penalty

    def penalty(self):
        return sum(self.by_call.values())


class Added(Penalized):
    def put(self, penalty, k):
        self.total = self.total + penalty

    def penalty(self):
        return self.total


class AppendedValues(Penalized):
    def put(self, penalty, k):
        self.every.append(k)

    def penalty(self):
        return sum(k.square().mean() for k in self.every)


class ButTheFirst(AppendedValues):
    def penalty(self):
        return self.every[-1].square().mean()


class FirstOfTwo(Penalized):
    def put(self, penalty, k):
        self.every.append(penalty)
        self.every.append(k.norm())

    def penalty(self):
        return self.every[0]


class InAnObject(Penalized):
    def put(self, penalty, k):
        self.held.every.append(penalty)

    def penalty(self):
        return sum(self.held.every)


class Last(Penalized):
    def put(self, penalty, k):
        self.last = penalty

    def penalty(self):
        return self.last


class LastInAnObject(Penalized):
    def put(self, penalty, k):
        self.held.last = penalty

    def penalty(self):
        return self.held.last


class LastState(Penalized):
    def put(self, penalty, k):
        self.last = k

    def penalty(self):
        return self.last.square().mean()


WAYS = (Appended, ByCall, Added, AppendedValues, ButTheFirst, FirstOfTwo, InAnObject, Last, LastInAnObject, LastState)
every_way = pytest.mark.parametrize("way", WAYS)


@losing_gradients
@every_way
@pytest.mark.parametrize("needs_y0", [True, False])
def test_its_use_in_the_loss_is_an_error(way, needs_y0, gradient):
    net = way()
    ys = solve(net, start().requires_grad_(needs_y0), gradient=gradient, **FIXED)
    with pytest.raises(sa.LostGradient, match=r'func put a tensor into func\..* gradient="backprop"'):
        (ys.sum() + net.penalty()).backward()


@losing_gradients
@every_way
def test_so_is_its_gradient_alone(way, gradient):
    net = way()
    solve(net, gradient=gradient, **FIXED)
    with pytest.raises(sa.LostGradient):
        torch.autograd.grad(net.penalty(), list(net.parameters()))


@every_way
def test_backprop_gives_its_gradient(way):
    net = way()
    solve(net, gradient="backprop", **FIXED)
    net.penalty().backward()
    assert net.layer.weight.grad.norm() > 0


@losing_gradients
@every_way
def test_nothing_else_changes(way, gradient):
    """The values, and the gradient of the solution, in two solves; a later one may read what an earlier one put."""
    found = []
    for name in ("backprop", gradient):
        net, y0 = way(), start().requires_grad_()
        first = solve(net, y0, gradient=name, **FIXED)
        penalty = net.penalty().detach()
        first.sum().backward()
        solve(net, y0, gradient=name, **FIXED).sum().backward()
        found.append((penalty, net.layer.weight.grad))
    approximate = gradient in ("continuous", "reversible", "mali")
    if gradient not in ("reversible", "mali"):  # these call func elsewhere
        assert torch.equal(found[0][0], found[1][0])
    # As in test_adoption: the continuous gradient at these steps, and rounding.
    assert (found[0][1] - found[1][1]).norm() < (1e-2 if approximate else 1e-12) * found[0][1].norm()


@losing_gradients
@every_way
def test_no_error_for_what_func_detaches(way, gradient):
    class Detached(way):
        def put(self, penalty, k):
            super().put(penalty.detach(), k.detach())

    net = Detached()
    (solve(net, start().requires_grad_(), gradient=gradient, **FIXED).sum() + net.penalty()).backward()
    assert net.layer.weight.grad is not None


@losing_gradients
def test_a_variable_that_func_assigns(gradient):
    weight, total = leaf(3), torch.zeros((), dtype=torch.float64)

    def func(t, y):
        nonlocal total
        k = weight * y
        total = total + k.square().mean()
        return k

    ys = solve(func, gradient=gradient, **FIXED)
    with pytest.raises(sa.LostGradient, match="total"):
        (ys.sum() + total).backward()


class Cached(nn.Module):
    """A network whose weight is computed in the first call of a solve, and kept for the others and the loss."""

    def __init__(self):
        super().__init__()
        self.source, self.weight = nn.Parameter(leaf(3).detach()), None

    def forward(self, t, y):
        if self.weight is None:
            self.weight = self.source.exp()
        return -self.weight * y


@every_gradient
def test_a_value_that_the_first_call_computes_and_later_ones_use_keeps_its_gradient(gradient):
    net = Cached()
    solve(net, gradient=gradient, **FIXED)
    net.weight.sum().backward()
    assert torch.allclose(net.source.grad, net.source.exp())


@losing_gradients
def test_weights_that_a_layer_computes_in_each_call(gradient):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = torch.nn.utils.weight_norm(nn.Linear(3, 3, dtype=torch.float64))
    for _ in range(2):
        solve(lambda t, y: torch.tanh(layer(y)), gradient=gradient, **FIXED).sum().backward()
    assert layer.weight_g.grad is not None


def test_a_solve_without_gradients_changes_nothing():
    net = Appended()
    with torch.no_grad():
        solve(net, gradient="symplectic", **FIXED)
    assert not any(x.requires_grad for x in net.every)
    copy.deepcopy(net)
