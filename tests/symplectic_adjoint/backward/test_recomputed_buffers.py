"""The backward pass sees the buffers of the forward pass, and leaves them as it found them."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.symplectic_adjoint.backward.recomputation import (
    LOOSE,
    Field,
    T,
    assert_as_backprop,
    every_gradient,
    gradients,
    recomputing_gradients,
    solve,
)


class TestBatchNorm:
    """Statistics move with the calls of the forward pass, and only with those."""

    @every_gradient
    def test_has_the_gradient_of_its_batches(self, gradient):
        def solution(gradient):
            func, y0 = Field(nn.BatchNorm1d(3).double()), start(batch=6).requires_grad_()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)

    @every_gradient
    def test_in_evaluation_mode_has_the_gradient_of_its_statistics(self, gradient):
        def solution(gradient):
            func, y0 = Field(nn.BatchNorm1d(3).double()), start(batch=6).requires_grad_()
            func(T[0], 3.0 * start(seed=7) + 1.0)
            func.eval()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)

    @every_gradient
    def test_moves_as_by_the_same_calls_without_a_solver(self, gradient):
        func, plain = (Field(nn.BatchNorm1d(3).double()) for _ in range(2))
        h, y = 0.2, start()
        ys = sa.odeint(func, y, T[[0, 2]], method="euler", options={"step_size": h}, gradient=gradient)
        with torch.no_grad():
            for n in range(5):
                y = y + h * plain(torch.tensor(n * h, dtype=torch.float64), y)
        assert func.after.num_batches_tracked == plain.after.num_batches_tracked == 5
        assert torch.allclose(ys[-1], y, rtol=1e-14)
        assert torch.allclose(func.after.running_mean, plain.after.running_mean, rtol=1e-14)
        assert torch.allclose(func.after.running_var, plain.after.running_var, rtol=1e-14)

    @every_gradient
    def test_gives_the_same_bits_whatever_the_gradient(self, gradient):
        with torch.no_grad():
            plain = solve(Field(nn.BatchNorm1d(3).double()), gradient="symplectic")
        assert torch.equal(solve(Field(nn.BatchNorm1d(3).double()), gradient=gradient), plain)

    @every_gradient
    def test_counts_every_forward_call(self, gradient):
        func = Field(nn.BatchNorm1d(3).double())
        solution = sa.solve(func, start(), T, gradient=gradient, **LOOSE)
        # One more call checks that a call can be repeated; its effect is undone.
        looks = int(func.after.num_batches_tracked) - solution.stats.f_calls_forward
        assert looks == (0 if gradient == "backprop" else -1)

    @every_gradient
    def test_is_unchanged_by_the_backward_pass(self, gradient):
        func = Field(nn.BatchNorm1d(3).double())
        ys = solve(func, gradient=gradient)
        before = [b.clone() for b in func.buffers()]
        gradients(ys, func)
        assert all(torch.equal(a, b) for a, b in zip(func.buffers(), before, strict=True))

    @recomputing_gradients
    def test_is_unchanged_by_a_backward_pass_that_fails(self, gradient):
        func, calls_left = Field(nn.BatchNorm1d(3).double()), []

        def fail(module, arguments, output):
            if calls_left and not calls_left.pop():
                raise RuntimeError("stopped")

        func.after.register_forward_hook(fail)
        ys = solve(func, gradient=gradient)
        before = [b.clone() for b in func.buffers()]
        calls_left[:] = [False, True, True]
        with pytest.raises(RuntimeError, match="stopped"):
            gradients(ys, func)
        assert all(torch.equal(a, b) for a, b in zip(func.buffers(), before, strict=True))

    @every_gradient
    def test_of_two_solves_is_left_as_the_second_left_it(self, gradient):
        func = Field(nn.BatchNorm1d(3).double())
        first, second = solve(func, gradient=gradient), solve(func, 2.0 * start(), gradient=gradient)
        before = [b.clone() for b in func.buffers()]
        (weighted_loss(first) + weighted_loss(second)).backward()
        assert all(torch.equal(a, b) for a, b in zip(func.buffers(), before, strict=True))

    @recomputing_gradients
    def test_is_refused_if_its_statistics_move_after_a_solve_in_evaluation_mode(self, gradient):
        func = Field(nn.BatchNorm1d(3).double()).eval()
        ys = solve(func, gradient=gradient)
        func.train()
        func(T[0], start(seed=9))
        with pytest.raises(sa.FunctionChanged):
            ys.sum().backward()


class Counting(nn.Module):
    """Counts its calls in a buffer: in place, or with a new tensor each time. Its value may depend on the count."""

    def __init__(self, *, in_place, depends=False):
        super().__init__()
        self.net = SmallNet()
        self.register_buffer("n", torch.zeros((), dtype=torch.float64))
        self.in_place, self.depends = in_place, depends

    def forward(self, t, y):
        if self.in_place:
            self.n += 1
        else:
            self.n = self.n + 1
        return self.net(t, y) * (1.0 + 0.01 * self.n if self.depends else 1.0)


@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "new-tensor"])
class TestABufferThatFuncChanges:
    @every_gradient
    def test_counts_the_calls_of_the_forward_pass(self, in_place, gradient):
        func = Counting(in_place=in_place)
        ys = sa.odeint(func, start(), T, method="rk4", options={"step_size": 0.25}, gradient=gradient)
        # Four steps of four stages; the one call more that checks that calls repeat is undone.
        assert func.n == 16
        counter = func.n
        gradients(ys, func)
        assert func.n == 16 and func.n is counter

    @every_gradient
    def test_is_harmless_where_func_does_not_read_it(self, in_place, gradient):
        def solution(gradient):
            func, y0 = Counting(in_place=in_place), start().requires_grad_()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)

    @recomputing_gradients
    def test_is_refused_by_name_where_func_reads_it(self, in_place, gradient):
        func = Counting(in_place=in_place, depends=True)
        with pytest.raises(sa.UnsupportedCombination, match=r"func changes buffers of its module \('n'\)"):
            solve(func, gradient=gradient)
        solve(func, gradient="backprop").sum().backward()
        assert func.net.twice.grad is not None
        with torch.no_grad():
            solve(func, gradient=gradient)


@recomputing_gradients
def test_a_buffer_that_func_fills_in_its_first_call_is_harmless(gradient):
    class Lazy(Counting):
        def __init__(self):
            super().__init__(in_place=True)
            self.register_buffer("scale", None)

        def forward(self, t, y):
            if self.scale is None:
                self.scale = torch.linspace(0.5, 1.0, 3, dtype=torch.float64)
            return super().forward(t, y) * self.scale

    def solution(gradient):
        func = Lazy()
        return solve(func, gradient=gradient), func

    assert_as_backprop(solution, gradient)


@recomputing_gradients
@pytest.mark.parametrize("change", [lambda b: b.mul_(2.0), lambda b: b.zero_()])
def test_a_buffer_that_func_reads_changed_between_the_passes_raises(change, gradient):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallNet()
            self.register_buffer("scale", torch.ones(3, dtype=torch.float64))

        def forward(self, t, y):
            return self.net(t, y) * self.scale

    func = Scaled()
    ys = solve(func, gradient=gradient)
    change(func.scale)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


SIZE = 8  # large enough for the power iteration to be still on its way


def by_hook(linear):
    return nn.utils.spectral_norm(linear)


def by_parametrisation(linear):
    return nn.utils.parametrizations.spectral_norm(linear)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.spectral_norm` is deprecated")
@pytest.mark.parametrize("spectral_norm", [by_hook, by_parametrisation])
class TestSpectralNorm:
    """In training mode every call takes another step of a power iteration: no call can be repeated."""

    class Net(nn.Module):
        def __init__(self, spectral_norm):
            super().__init__()
            torch.manual_seed(0)
            self.linear = spectral_norm(nn.Linear(SIZE, SIZE).double())

        def forward(self, t, y):
            return torch.tanh(self.linear(y))

    @recomputing_gradients
    def test_in_training_mode_is_refused_by_name(self, spectral_norm, gradient):
        func = self.Net(spectral_norm)
        with pytest.raises(sa.UnsupportedCombination, match=r"spectral norm in training mode .*Call func\.eval\(\)"):
            solve(func, start(size=SIZE), gradient=gradient)

    def test_in_training_mode_works_with_backprop(self, spectral_norm):
        func = self.Net(spectral_norm)
        weighted_loss(solve(func, start(size=SIZE), gradient="backprop")).backward()
        assert all(p.grad is not None and p.grad.any() for p in func.parameters())

    @every_gradient
    def test_in_evaluation_mode_works(self, spectral_norm, gradient):
        def solution(gradient):
            func, y0 = self.Net(spectral_norm).eval(), start(size=SIZE).requires_grad_()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)
