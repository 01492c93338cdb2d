"""A func that solves, or waits for a thread that does: no two solves wait for each other for ever."""

import threading

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field import module_lock
from tests.fields import start
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.threads import (
    ROUNDING,
    STEPS,
    TIME_LIMIT_S,
    T,
    Through,
    gradients,
    in_a_thread,
    largest_error,
    linear,
    many_switches,
    run_together,
    worker,
)


class SolvesInside(nn.Module):
    """A func that solves with another network."""

    def __init__(self, own, barrier=None):
        super().__init__()
        self.own, self.others, self.barrier = own, [], barrier

    def forward(self, t, y):
        if self.barrier is not None:
            self.barrier.wait(TIME_LIMIT_S)
        inner = sa.odeint(self.others[0], y, T, params=tuple(self.others[0].parameters()), **STEPS)
        return torch.tanh(self.own(t, inner[-1]))


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline"])
def test_two_threads_may_each_solve_inside_with_what_the_other_one_trains(gradient):
    """A's func solves with B's network and B's func with A's, both inside their func at once, in both passes."""
    barrier = threading.Barrier(2)
    a, b = SolvesInside(Through(linear())), SolvesInside(Through(linear()))
    a.others, b.others = [b.own], [a.own]
    leaves = (*a.own.parameters(), *b.own.parameters())
    given = {"params": leaves, "gradient": gradient}
    expected = [gradients(net, leaves, params=leaves, gradient="backprop") for net in (a, b)]
    a.barrier = b.barrier = barrier
    got = {}
    works = [lambda i=i, net=net: got.update({i: gradients(net, leaves, **given)}) for i, net in enumerate((a, b))]
    run_together(*works)
    assert all(largest_error(got[i], expected[i]) < ROUNDING for i in range(2))


@pytest.mark.usefixtures("either_sums")
def test_three_threads_may_solve_inside_round_a_ring():
    nets = [SolvesInside(Through(linear())) for _ in range(3)]
    for i, net in enumerate(nets):
        net.others = [nets[(i + 1) % 3].own]
    works = []
    for net in nets:
        leaves = (*net.own.parameters(), *net.others[0].parameters())
        works.append(worker(net, leaves, 5, params=leaves))
    with many_switches():
        run_together(*works)


def here(work):
    return work()


class Energy(nn.Module):
    """A func that differentiates through an inner solve with itself, as autograd does on a thread of the device."""

    def __init__(self, where):
        super().__init__()
        self.inner, self.where = Through(linear()), where

    def forward(self, t, y):
        with torch.enable_grad():
            x = y.detach().requires_grad_()
            energy = sa.odeint(self.inner, x, T, **STEPS)[-1].square().sum()
            (force,) = self.where(lambda: torch.autograd.grad(energy, x))
        return self.inner(t, y) - force


class SolvesElsewhere(nn.Module):
    """A func that solves with itself in a thread, and waits for it."""

    def __init__(self, where):
        super().__init__()
        self.inner, self.where = Through(linear()), where

    def forward(self, t, y):
        on = torch.is_grad_enabled()  # threads have their own

        def solve():
            with torch.set_grad_enabled(on):
                return sa.odeint(self.inner, y, T, **STEPS)[-1]

        return torch.tanh(self.where(solve)) - y


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca"])
@pytest.mark.parametrize("func", [Energy, SolvesElsewhere])
def test_func_may_wait_for_a_thread_that_solves_with_the_same_module(func, gradient):
    same, other = func(here), func(in_a_thread)
    other.load_state_dict(same.state_dict())
    expected = gradients(same, tuple(same.parameters()), gradient=gradient)
    got = []
    run_together(lambda: got.extend(gradients(other, tuple(other.parameters()), gradient=gradient)))
    assert largest_error(got, expected) < ROUNDING


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline"])
def test_the_backward_pass_of_an_inner_solve_may_run_in_another_thread(gradient):
    """In the backward pass of the outer one only, which holds aliases then: on a device it does."""

    class Carry(torch.autograd.Function):
        @staticmethod
        def forward(ctx, run, x):
            ctx.run = run
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return None, in_a_thread(lambda: ctx.run(grad))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.inside = Through(linear()), True

        def forward(self, t, y):
            if not self.inside:
                return self.inner(t, sa.odeint(self.inner, y, T, **STEPS)[-1])
            with torch.enable_grad():
                x = y.detach().requires_grad_()
                end = sa.odeint(self.inner, x, T, **STEPS)[-1]

            def pulled_back(grad):
                return torch.autograd.grad(end, x, grad)[0]

            if not torch.is_grad_enabled():
                return self.inner(t, end.detach())
            return self.inner(t, end.detach() + Carry.apply(pulled_back, y) - y.detach())

    func = Outer()
    y0 = start().requires_grad_()
    (expected,) = torch.autograd.grad(value(func, y0, "backprop", inside=False), y0)
    got = []
    run_together(lambda: got.extend(torch.autograd.grad(value(func, y0, gradient, inside=True), y0)))
    assert relative_error(got[0], expected) < ROUNDING


def value(func, y0, gradient, inside):
    func.inside = inside
    return sa.odeint(func, y0, T, gradient=gradient, **STEPS)[-1].square().sum()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_a_func_that_solves_with_itself_for_ever_ends(grad, plain):
    net = linear()

    class Endless(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return sa.odeint(self, self.net(y), T, **STEPS)[-1]

    def endless(t, y):
        return sa.odeint(endless, net(y), T, params=net, **STEPS)[-1]

    func = endless if plain else Endless()
    with pytest.raises(RecursionError), torch.set_grad_enabled(grad):
        sa.odeint(func, start(), T, params=net, **STEPS)
    assert not module_lock._TABLE.held
    run_together(lambda: gradients(Through(net), tuple(net.parameters())))
