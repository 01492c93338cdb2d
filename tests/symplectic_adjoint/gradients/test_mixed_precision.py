"""Gradients where f computes in bfloat16 or float16, against float64 and against autograd under the same autocast."""

import math

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.backward.recomputed_values import RecomputedValues
from tests.gradients import EXACT, OWN_STEPS, STANDARD
from tests.oracle import relative_error
from tests.symplectic_adjoint.gradients.half_precision import (
    FIXED,
    LEVEL,
    Net,
    T,
    autocast,
    errors,
    every_gradient,
    every_half,
    gradient_of,
    loss_of,
    recomputing,
    solution,
    start,
    truth,
)


class TestGradientsAreAsNearToFloat64AsAutogradsOwn:
    @every_half
    @pytest.mark.parametrize("within", [False, True], ids=["around", "inside-func"])
    @every_gradient
    def test_with_fixed_steps(self, gradient, within, dtype):
        found, leaves = solution(gradient, dtype, within=within)
        assert found.ys.dtype == torch.float32
        exact = truth(found, gradient)
        got = errors(gradient_of(found, leaves), exact)
        assert max(got) < LEVEL[dtype]
        if gradient in EXACT and gradient != "backprop":
            own = errors(gradient_of(*solution("backprop", dtype, cache=False)), exact)
            # The same rounded operations, but for the order of the sums.
            assert all(a < 1.5 * b + torch.finfo(dtype).eps / 8 for a, b in zip(got, own, strict=True))

    @every_half
    @every_gradient
    def test_with_adaptive_steps(self, gradient, dtype):
        found, leaves = solution(gradient, dtype, method="dopri5", options=None, rtol=1e-3, atol=1e-3)
        exact = truth(found, gradient, "dopri5")
        bound = LEVEL[dtype] if sa.GRADIENTS[gradient].exact else 2e-2  # its second solve has an error of its own
        assert max(errors(gradient_of(found, leaves), exact)) < bound

    @every_half
    @recomputing
    def test_where_every_value_is_compared(self, gradient, dtype, monkeypatch):
        """As on a card, where equal values are not known to be equal without a wait."""
        monkeypatch.setattr(RecomputedValues, "_surely_equal", lambda self, a, b: False)
        found, leaves = solution(gradient, dtype)
        assert max(errors(gradient_of(found, leaves), truth(found, gradient))) < LEVEL[dtype]

    @every_half
    @pytest.mark.parametrize("gradient", EXACT)
    def test_and_as_torchdiffeqs(self, gradient, dtype):
        func, y0 = Net(), start().requires_grad_()
        with autocast(dtype):
            ys = torchdiffeq.odeint(func, y0, T, method="rk4", options=FIXED)
        theirs = torch.autograd.grad(loss_of(ys), [y0, *func.parameters()])
        found, (y0, _, *params) = solution(gradient, dtype, method="rk38")  # torchdiffeq's rk4
        exact_y0, _, *exact_params = truth(found, gradient, "rk38")
        exact = [exact_y0, *exact_params]
        ours = errors(gradient_of(found, [y0, *params]), exact)
        # Its sums over the steps are in half precision, where autocast's cache hands one weight to every call.
        assert max(ours) < 1.5 * max(errors(theirs, exact))

    @every_half
    @pytest.mark.parametrize(
        "gradient",
        [
            sa.Symplectic(graphs=7),
            sa.Symplectic(graphs=math.inf),
            sa.Symplectic(keep="stages", graphs=3),
            sa.Symplectic(offload="cpu"),
            sa.Revolve(2),
            sa.Auto("20 KiB"),
            sa.Auto("1 MiB"),
        ],
        ids=str,
    )
    def test_with_objects(self, gradient, dtype):
        found, leaves = solution(gradient, dtype)
        expected = gradient_of(*solution("symplectic", dtype))
        # The same operations, but for the order of their sums, in float32 or, by autograd itself, in half precision.
        assert max(errors(gradient_of(found, leaves), expected)) < LEVEL[dtype]
        assert max(errors(gradient_of(found, leaves), expected)) < LEVEL[dtype], "a second backward pass differs"

    @every_half
    @pytest.mark.parametrize("accumulate", ["float64", "compensated"])
    def test_with_precise_sums(self, accumulate, dtype):
        found, leaves = solution("symplectic", dtype, accumulate=accumulate)
        assert max(errors(gradient_of(found, leaves), truth(found, "symplectic"))) < LEVEL[dtype]

    @every_half
    @recomputing
    def test_parameters_gradients_are_float32_and_the_module_is_as_before(self, gradient, dtype):
        found, leaves = solution(gradient, dtype)
        bars = torch.autograd.grad(loss_of(found.ys), leaves)
        assert {bar.dtype for bar in bars} == {torch.float32}
        assert not torch.is_autocast_enabled("cpu")


class UsedTwice(nn.Module):
    """One layer used twice in a call, in a block of autocast whose cache casts its weight once."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dtype = nn.Linear(4, 4), dtype

    def forward(self, t, y):
        with torch.autocast("cpu", dtype=self.dtype):
            return self.layer(torch.tanh(self.layer(y)))


class TestTheRestOfTheInterface:
    @every_half
    @pytest.mark.parametrize("around_backward", [False, True])
    @pytest.mark.parametrize("steps", [1, 5])
    @pytest.mark.parametrize("gradient", [name for name in EXACT if name != "backprop"])
    def test_weights_that_func_uses_twice_in_a_block_of_its_own(self, gradient, steps, around_backward, dtype):
        """The casts of a call in the backward pass, as many as in the forward pass or not, are no change of func."""
        func, y0 = UsedTwice(dtype), start().requires_grad_()

        def gradients(gradient):
            ys = sa.odeint(func, y0, T[[0, -1]], method="rk4", options={"step_size": 1 / steps}, gradient=gradient)
            loss = loss_of(ys)
            with torch.autocast("cpu", dtype=dtype, enabled=around_backward):
                return torch.autograd.grad(loss, [y0, *func.parameters()])

        # The same rounded operations, but for the scale of the cotangents in float16.
        assert max(errors(gradients(gradient), gradients("backprop"))) < LEVEL[dtype]

    @every_half
    @pytest.mark.parametrize("gradient", STANDARD)
    def test_events(self, gradient, dtype):
        """y' = -k y crosses c at t = ln(y0 / c) / k: dt/dk = -t / k, dt/dy0 = 1 / (k y0)."""
        net = nn.Linear(1, 1, bias=False)
        nn.init.constant_(net.weight, -0.5)
        y0 = torch.tensor([[2.0]], requires_grad=True)
        with autocast(dtype):
            t, _ = sa.odeint(
                lambda t, y: net(y), y0, T[[0, -1]], event_fn=lambda t, y: y.flatten()[0] - 1.25, gradient=gradient,
                rtol=1e-3, atol=1e-4, params=(net.weight,),
            )  # fmt: skip
        of_y0, of_k = torch.autograd.grad(t, (y0, net.weight))
        expected = math.log(2.0 / 1.25) / 0.5
        eps = torch.finfo(dtype).eps
        assert t.item() == pytest.approx(expected, rel=2 * eps)
        assert of_y0.item() == pytest.approx(1.0 / (0.5 * 2.0), rel=4 * eps)
        assert of_k.item() == pytest.approx(expected / 0.5, rel=4 * eps)

    @every_half
    @pytest.mark.parametrize("gradient", STANDARD)
    def test_dense_solutions(self, gradient, dtype):
        func, y0 = Net(), start().requires_grad_()
        with autocast(dtype):
            dense = sa.odeint_dense(func, y0, 0.0, 1.0, gradient=gradient, rtol=1e-3, atol=1e-3)
        ys = dense(T)  # outside autocast: the steps are repeated as they were taken
        exact_y0, exact_func = start(torch.float64).requires_grad_(), Net().double()
        exact = sa.odeint(exact_func, exact_y0, T.double(), rtol=1e-9, atol=1e-10, gradient="backprop")
        bars = torch.autograd.grad(loss_of(ys), [y0, *func.parameters()])
        expected = torch.autograd.grad(loss_of(exact), [exact_y0, *exact_func.parameters()])
        assert max(errors(bars, expected)) < LEVEL[dtype] + 2e-3  # of the steps' own tolerance

    @every_half
    def test_adjoint_interfaces(self, dtype):
        func, y0 = Net(), start().requires_grad_()
        with autocast(dtype):
            ys = sa.odeint_adjoint(func, y0, T, method="rk4", options=FIXED)
        found, leaves = solution("symplectic", dtype)
        own = torch.autograd.grad(loss_of(ys), [y0, *func.parameters()])
        other = torch.autograd.grad(loss_of(found.ys), [leaves[0], *leaves[2:]])
        assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))

    @every_half
    @recomputing
    def test_recomputed_values_are_those_of_the_forward_pass(self, gradient, dtype):
        """Also where autocast's cache held the weights' casts in the forward pass, and not in the backward pass."""
        func, values = Net(), {}

        def spy(t, y):
            k = func(t, y)
            values.setdefault((float(t), y.detach().numpy().tobytes()), []).append(k.detach().clone())
            return k

        method = None if gradient == "mali" else "rk4"
        with autocast(dtype):
            func(torch.tensor(0.0), start())  # so that the cache holds casts made before the solve
            ys = sa.odeint(
                spy, start().requires_grad_(), T, method=method, options=FIXED, gradient=gradient,
                params=[*func.parameters()],
            )  # fmt: skip
        loss_of(ys).backward()
        repeated = [found for found in values.values() if len(found) > 1]
        assert repeated or not sa.GRADIENTS[gradient].exact or gradient in OWN_STEPS
        assert all(torch.equal(x, found[0]) for found in repeated for x in found)

    @every_half
    @recomputing
    def test_a_module_used_after_the_solve_in_the_same_block_keeps_its_gradient(self, gradient, dtype):
        """The cache would hand it a cast that was made without a graph."""
        func, late = Net(), Net()

        def switching(t, y):
            return func(t, y) if t < 0.5 else late(t, y)

        method = None if gradient == "mali" else "rk4"
        params = [*func.parameters(), *late.parameters()]
        with autocast(dtype):
            ys = sa.odeint(switching, start(), T, method=method, options=FIXED, gradient=gradient, params=params)
            after = late(torch.tensor(0.0), ys[-1].detach()).float()
        expected = Net().double()
        exact = expected(torch.tensor(0.0).double(), ys[-1].detach().double())
        (bar,), (exact_bar,) = (
            torch.autograd.grad(x.square().sum(), net.inner.weight) for x, net in ((after, late), (exact, expected))
        )
        assert relative_error(bar.double(), exact_bar) < 2 * LEVEL[dtype]

    @every_half
    @every_gradient
    def test_functions_with_autocast_rules_of_their_own(self, gradient, dtype):
        class Square(torch.autograd.Function):
            @staticmethod
            @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            @torch.amp.custom_bwd(device_type="cpu")
            def backward(ctx, grad):
                (x,) = ctx.saved_tensors
                return 2 * x * grad

        def gradients(half):
            func, y0 = Net(), start().requires_grad_()
            method = None if gradient == "mali" else "rk4"
            with autocast(half):
                ys = sa.odeint(
                    lambda t, y: -Square.apply(func(t, y)), y0, T, method=method, options=FIXED, gradient=gradient,
                    params=[*func.parameters()],
                )  # fmt: skip
            return torch.autograd.grad(loss_of(ys), [y0, *func.parameters()])

        assert max(errors(gradients(dtype), gradients(None))) < 2 * LEVEL[dtype]

    def test_compile_is_refused_where_func_computes_in_float16(self):
        with pytest.raises(sa.UnsupportedCombination, match=r"compile=True.*computes in float16"):
            sa.odeint(Net(torch.float16), start(), T, method="rk4", compile=True)
