"""The backward pass repeats the random numbers of the forward pass, even if others were drawn in between."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.backward.recomputation import (
    T,
    assert_as_backprop,
    every_gradient,
    gradients,
    noisy,
    recomputing_gradients,
    solve,
)


@pytest.mark.parametrize("name", ["dropout", "noise", "hutchinson"])
class TestRandomNumbersInFunc:
    @every_gradient
    def test_give_the_gradient_of_what_was_drawn(self, name, gradient):
        def solution(gradient):
            func, y0 = noisy(name), start().requires_grad_()
            return solve(func, y0, gradient=gradient, seed=3), func, y0

        assert_as_backprop(solution, gradient)

    @every_gradient
    def test_give_the_same_bits_whatever_the_gradient(self, name, gradient):
        with torch.no_grad():
            plain = solve(noisy(name), gradient="symplectic", seed=3)
        assert torch.equal(solve(noisy(name), gradient=gradient, seed=3), plain)

    @every_gradient
    def test_leave_the_generator_alone_in_the_backward_pass(self, name, gradient):
        func = noisy(name)
        ys = solve(func, gradient=gradient, seed=3)
        torch.manual_seed(11)
        before = torch.get_rng_state()
        gradients(ys, func)
        assert torch.equal(torch.get_rng_state(), before)

    @every_gradient
    def test_advance_the_generator_by_one_call_per_solve(self, name, gradient):
        func = noisy(name)
        solve(func, gradient=gradient, seed=3)
        after = torch.get_rng_state()
        torch.manual_seed(3)
        func(T[0], (start(), start()[:, 0]) if name == "hutchinson" else start())
        assert torch.equal(torch.get_rng_state(), after)

    @every_gradient
    def test_differ_from_solve_to_solve(self, name, gradient):
        func = noisy(name)
        first, second = (solve(func, gradient=gradient) for _ in range(2))
        assert not torch.allclose(first[-1], second[-1])
        of_first, of_second = (gradients(ys, func) for ys in (first, second))
        assert not all(a is None or torch.allclose(a, b) for a, b in zip(of_first, of_second, strict=True))


@every_gradient
def test_every_call_of_a_solve_has_the_same_noise(gradient):
    func = noisy("noise")
    drawn = func.after.drawn
    ys = solve(func, gradient=gradient)
    forward_calls = len(drawn)
    gradients(ys, func)
    assert forward_calls > 10 and (gradient == "backprop" or len(drawn) > forward_calls)
    assert all(torch.equal(noise, drawn[0]) for noise in drawn)


@recomputing_gradients
def test_a_backward_pass_through_two_solves_has_the_noise_of_each(gradient):
    def solution(gradient):
        func = noisy("dropout")
        torch.manual_seed(4)
        first = solve(func, gradient=gradient)
        return solve(func, first[-1], gradient=gradient), func

    assert_as_backprop(solution, gradient)


@pytest.mark.parametrize("gradient", EXACT)
def test_noise_is_the_same_in_second_derivatives(gradient):
    def second(gradient):
        func, y0 = noisy("dropout"), start(batch=1).requires_grad_()
        func.after.p = 0.2
        ys = solve(lambda t, y: func(t, y).sin(), y0, gradient=gradient, seed=5, params=(*func.parameters(),))
        (first,) = torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)
        return torch.autograd.grad(first.square().sum(), func.linear.weight)[0]

    assert relative_error(second(gradient), second("backprop")) < 1e-11  # one order of derivatives more


@recomputing_gradients
def test_noise_first_drawn_in_a_later_call_is_refused(gradient):
    net = SmallNet()

    def func(t, y):
        return net(t, y) + (torch.randn(3, dtype=y.dtype) if t > 0.5 else 0.0)

    fixed = {"method": "rk4", "options": {"step_size": 0.125}}
    with pytest.raises(sa.UnsupportedCombination, match=r"random numbers were drawn .* not in func's first call"):
        solve(func, gradient=gradient, params=(*net.parameters(),), **fixed)
    solve(func, gradient="backprop", **fixed).sum().backward()
    assert net.twice.grad is not None
    with torch.no_grad():
        solve(func, gradient=gradient, **fixed)
