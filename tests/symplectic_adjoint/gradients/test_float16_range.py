"""Cotangents that float16 cannot hold: scaled, survived where they overflow, and left to a GradScaler."""

import math

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from tests.oracle import relative_error, replay
from tests.symplectic_adjoint.gradients.half_precision import (
    FIXED,
    LEVEL,
    Net,
    T,
    autocast,
    errors,
    gradient_of,
    loss_of,
    recomputing,
    solution,
    start,
)


class TestFloat16Range:
    """Cotangents that float16 cannot hold: below 6e-8 they are zero, above 65504 infinite."""

    @pytest.mark.parametrize("scale", [2.0**-30, 2.0**-60, 2.0**40, 2.0**80])
    @recomputing
    def test_neither_small_nor_large_losses_matter(self, gradient, scale):
        found, leaves = solution(gradient, torch.float16)
        expected, got = gradient_of(found, leaves), gradient_of(found, leaves, scale=scale)
        # Powers of two change no bit, except where a second solve chooses its steps from the absolute tolerance.
        bound = 0.0 if sa.GRADIENTS[gradient].exact else LEVEL[torch.float16]
        assert max(errors(got, expected)) <= bound

    def test_autograds_own_loses_them(self):
        func, y0 = Net(), start().requires_grad_()
        with autocast(torch.float16):
            ys = torchdiffeq.odeint(func, y0, T, method="rk4", options=FIXED)
        (bar,) = torch.autograd.grad(loss_of(ys) * 2.0**-40, func.inner.weight)
        assert not bar.any()

    @pytest.mark.parametrize("how", ["autocast-inside", "parameters", "state", "part"])
    @pytest.mark.parametrize("gradient", ["symplectic", "aca", "stages", "revolve", "baseline", "mali", "reversible"])
    def test_wherever_float16_comes_from(self, gradient, how):
        def gradients(half, scale):
            func = Net(torch.float16 if half and how == "autocast-inside" else None)
            y0 = start()
            if half and how in ("parameters", "state"):
                func = func.half()
            if half and how == "state":
                y0 = y0.half()
            y0.requires_grad_()

            def f(t, y):
                if how == "part":
                    z = y[0].half() if half else y[0]
                    with autocast(torch.float16 if half else None):
                        return func(t.float(), z).to(z.dtype), -y[1]
                return func(t, y.to(func.inner.weight.dtype)) if how == "parameters" else func(t, y)

            state = (y0.half() if half else y0, torch.ones(3)) if how == "part" else y0
            method = None if gradient == "mali" else "rk4"
            ys = sa.odeint(f, state, T, method=method, options=FIXED, gradient=gradient, params=[*func.parameters()])
            last = (ys[0] if how == "part" else ys)[-1].float()
            inputs = [func.inner.weight, func.outer.bias]
            bars = torch.autograd.grad(last, inputs, 2 * scale * last.detach() if half else 2 * last.detach())
            return [bar.double() / (scale if half else 1.0) for bar in bars]

        # Cotangents of half precision states and parameters are float16 outside the solve too, and bounded there.
        scale = 2.0**-40 if how == "autocast-inside" else 2.0**-8
        assert max(errors(gradients(True, scale), gradients(False, scale))) < 2e-2


class Amplifier(nn.Module):
    """f(y) = -y, by way of a hidden layer whose cotangents are `by` times those of f."""

    def __init__(self, by):
        super().__init__()
        self.down = nn.Parameter(torch.eye(4) / by)
        self.up = nn.Parameter(-torch.eye(4) * by)

    def forward(self, t, y):
        return y @ self.down.mT @ self.up.mT


class TestOverflow:
    """Here 2^10 >= by: float16 holds `by` and 1 / by, but not the products of cotangents with it twice."""

    def solved(self, gradient, by, layers, **keywords):
        torch.manual_seed(0)
        funcs = nn.ModuleList(Amplifier(by) for _ in range(layers))

        def f(t, y):
            # down all the way first, then up: cotangents of the narrow middle are by^layers times those of f
            for func in funcs:
                y = y @ func.down.mT
            for func in funcs:
                y = y @ -func.up.mT
            return -y

        y0 = (start()[:, :4] * 1e3).requires_grad_()
        method = None if gradient == "mali" else "rk4"
        with autocast(torch.float16):
            found = sa.solve(
                f, y0, T, method=method, options={"step_size": 0.2}, gradient=gradient,
                params=[*funcs.parameters()], **keywords,
            )  # fmt: skip
        return found, [y0, *funcs.parameters()]

    @recomputing
    def test_is_survived(self, gradient):
        found, leaves = self.solved(gradient, by=2.0**9, layers=2)
        bars = torch.autograd.grad(loss_of(found.ys) * 1e-3, leaves, retain_graph=True)
        # y' = -y: dL/dy0 is e^-t squared at the outputs; the eye's 2^9 is exact, the products of 1e3 are not.
        decay = torch.exp(-2 * T)
        weights = torch.linspace(0.5, 1.5, found.ys.numel()).reshape(found.ys.shape)
        expected = 2e-3 * (weights * decay[:, None, None]).sum(0) * leaves[0]
        assert relative_error(bars[0], expected) < 5e-3
        assert all(bar.isfinite().all() for bar in bars)

    @pytest.mark.parametrize("gradient", ["symplectic", "aca", "stages", "revolve", "mali", "reversible"])
    def test_repeats_the_sweep_only_if_there_is_one(self, gradient):
        without, leaves = self.solved(gradient, by=2.0, layers=1)
        torch.autograd.grad(loss_of(without.ys), leaves)
        found, leaves = self.solved(gradient, by=2.0**9, layers=2)
        torch.autograd.grad(loss_of(found.ys), leaves)
        assert found.stats.vjps_backward == 2 * without.stats.vjps_backward

    @recomputing
    def test_at_the_lowest_scale_is_returned(self, gradient):
        found, leaves = self.solved(gradient, by=2.0**9, layers=5)  # 2^45: more than float16 holds from end to end
        bars = torch.autograd.grad(loss_of(found.ys), leaves)
        assert not all(bar.isfinite().all() for bar in bars)

    @recomputing
    def test_in_the_cotangents_given_is_returned_at_once(self, gradient):
        found, leaves = self.solved(gradient, by=2.0, layers=1)
        counts = []
        for scale in (1.0, math.inf):
            before = found.stats.vjps_backward
            bars = torch.autograd.grad(found.ys[-1].sum() * scale, leaves, retain_graph=True)
            counts.append(found.stats.vjps_backward - before)
        assert not any(bar.isfinite().all() for bar in bars)
        if sa.GRADIENTS[gradient].exact:
            assert counts[0] == counts[1]

    @pytest.mark.parametrize("gradient", ["symplectic", "aca", "stages", "revolve", "baseline"])
    @pytest.mark.parametrize("retained", [False, True])
    def test_does_not_depend_on_what_the_first_sweep_consumed(self, gradient, retained):
        if gradient == "symplectic":
            gradient = sa.Symplectic(graphs=5)
        found, leaves = self.solved(gradient, by=2.0**9, layers=2)
        first = torch.autograd.grad(loss_of(found.ys), leaves, retain_graph=retained)
        expected, leaves = self.solved("stages", by=2.0**9, layers=2)
        # The same float16 operations and the same scales, summed in another order.
        for bar, other in zip(first, torch.autograd.grad(loss_of(expected.ys), leaves), strict=True):
            assert relative_error(bar, other) < 1e-3

    def test_in_a_double_backward(self):
        found, leaves = solution("symplectic", torch.float16)
        (bar,) = torch.autograd.grad(loss_of(found.ys) * 2.0**-40, leaves[:1], create_graph=True)
        (second,) = torch.autograd.grad((bar * 2.0**40).square().sum(), leaves[:1])
        y0 = start(torch.float64).requires_grad_()
        func = Net().double()
        ys = replay(func, sa.METHODS["rk4"], found.grid, y0, T.double())
        (exact,) = torch.autograd.grad(loss_of(ys), y0, create_graph=True)
        (exact_second,) = torch.autograd.grad(exact.square().sum(), y0)
        assert relative_error(bar.double() * 2.0**40, exact) < LEVEL[torch.float16]
        assert relative_error(second.double(), exact_second) < 2 * LEVEL[torch.float16]

    def test_in_a_batch_of_cotangents(self):
        found, leaves = solution("symplectic", torch.float16)
        cotangents = torch.stack([torch.full_like(found.ys, 2.0**-40), torch.full_like(found.ys, 2.0**40)])
        small, large = torch.autograd.grad(found.ys, leaves[0], cotangents, is_grads_batched=True, retain_graph=True)[0]
        (one,) = torch.autograd.grad(found.ys, leaves[0], torch.ones_like(found.ys))
        # Each cotangent has its own scale; batched products may be summed in another order.
        assert relative_error(small * 2.0**40, one) < 1e-3 and relative_error(large * 2.0**-40, one) < 1e-3


@pytest.mark.parametrize("init_scale", [2.0**16, 2.0**40])
@recomputing
def test_a_grad_scaler_trains(gradient, init_scale):
    func, y0 = Net(), start()
    optimizer = torch.optim.SGD(func.parameters(), lr=2e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, backoff_factor=2.0**-8)
    method = None if gradient == "mali" else "rk4"
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        with autocast(torch.float16):
            ys = sa.odeint(func, y0, T, method=method, options=FIXED, gradient=gradient)
            loss = nn.functional.linear(ys[-1], torch.eye(4)).square().mean()  # in float16: overflows with 2^40
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.isfinite().all() for p in func.parameters())
    if init_scale > 2.0**16:
        assert losses[0] == losses[1] > losses[-1] and scaler.get_scale() < init_scale  # the first step was skipped


def test_an_adaptive_second_solve_returns_what_a_grad_scaler_looks_for():
    func, y0 = Net(), start().requires_grad_()
    with autocast(torch.float16):
        ys = sa.odeint(func, y0, T, rtol=1e-3, atol=1e-3, gradient="continuous")
    bars = torch.autograd.grad(ys.sum() * math.inf, [y0, *func.parameters()])
    assert not any(bar.isfinite().any() for bar in bars)
