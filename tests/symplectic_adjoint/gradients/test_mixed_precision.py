"""Gradients where f computes in bfloat16 or float16, against float64 and against autograd under the same autocast."""

import math
from contextlib import nullcontext

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from tests.gradients import EXACT, OWN_STEPS, STANDARD, taking_turns
from tests.oracle import relative_error, replay

HALVES = [torch.bfloat16, torch.float16]
T = torch.tensor([0.0, 0.4, 1.0])
FIXED = {"step_size": 0.1}
ALL = list(sa.GRADIENTS)
every_gradient = pytest.mark.parametrize("gradient", list(sa.GRADIENTS))
recomputing = pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "backprop"])
every_half = pytest.mark.parametrize("dtype", HALVES, ids=["bfloat16", "float16"])


class Net(nn.Module):
    """Two layers, whose last operation is autocast, so that its value is in half precision."""

    def __init__(self, within=None):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(4, 16), nn.Linear(16, 4)
        self.within = within

    def forward(self, t, y):
        autocast = nullcontext() if self.within is None else torch.autocast("cpu", dtype=self.within)
        with autocast:
            return self.outer(torch.tanh(self.inner(y)) * torch.cos(t))


def start(dtype=torch.float32):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to(dtype)


def loss_of(ys):
    return (ys.square() * torch.linspace(0.5, 1.5, ys.numel()).reshape(ys.shape).to(ys)).sum()


def autocast(dtype, **settings):
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype, **settings)


def solution(gradient, dtype, *, within=False, cache=True, method=None, options=FIXED, **keywords):
    """Return (solution, [y0, t, parameters]) of a solve under autocast, around it or inside func."""
    func, y0, t = Net(dtype if within else None), start().requires_grad_(), T.clone().requires_grad_()
    method = None if gradient == "mali" else method or "rk4"
    with autocast(None if within else dtype, cache_enabled=cache):
        found = sa.solve(func, y0, t, gradient=gradient, method=method, options=options, **keywords)
    return found, [y0, t, *func.parameters()]


def gradient_of(found, leaves, *, scale=1.0):
    """Return the gradient of the loss times scale, divided by scale in float64."""
    bars = torch.autograd.grad(loss_of(found.ys) * scale, leaves, retain_graph=True)
    return [bar.double() / scale for bar in bars]


def truth(found, gradient, method="rk4"):
    """Return the gradient of the recorded steps with f in float64, by autograd."""
    func, y0, t = Net().double(), start(torch.float64).requires_grad_(), T.double().requires_grad_()
    pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}.get(gradient)
    tableau = sa.GRADIENTS[gradient].own_tableau or sa.METHODS[method]
    ys = replay(func, tableau, found.grid, y0, t, pair)
    return list(torch.autograd.grad(loss_of(ys), [y0, t, *func.parameters()]))


def errors(bars, exact):
    return [relative_error(a, b) for a, b in zip(bars, exact, strict=True)]


# Each of some ten rounded operations of f and its VJP is off by up to eps / 2, independently, and averaged over steps.
LEVEL = {dtype: 2 * torch.finfo(dtype).eps for dtype in HALVES}


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


class TestStepControl:
    @every_half
    @pytest.mark.parametrize("method", ["dopri5", "bosh3"])
    @pytest.mark.parametrize("zero", [False, True])
    def test_ends_with_torchdiffeqs_error_in_fewer_calls(self, method, zero, dtype):
        y0 = start() * (not zero)
        tolerances = {"rtol": 1e-6, "atol": 1e-8}

        def error_and_calls(odeint, method):
            calls = 0
            net = Net()

            def func(t, y):
                nonlocal calls
                calls += 1
                return net(t, y)

            with torch.no_grad(), autocast(dtype):
                end = odeint(func, y0, T[[0, -1]], method=method, **tolerances)[-1]
            return relative_error(end.double(), exact), calls

        with torch.no_grad():
            exact = torchdiffeq.odeint(Net().double(), y0.double(), T[[0, -1]].double(), rtol=1e-10, atol=1e-12)[-1]
        theirs, their_calls = error_and_calls(torchdiffeq.odeint, method)
        with pytest.warns(sa.ResolutionWarning, match="below what func's values resolve"):
            ours, our_calls = error_and_calls(sa.odeint, method)
        # Both are off by what rounding f's values adds, which depends on where it was called.
        assert ours < 2.5 * theirs + torch.finfo(dtype).eps / 4
        assert our_calls < their_calls / 2

    def test_is_as_ever_where_func_is_as_precise_as_y(self):
        y0 = start().abs()

        def grid(on):
            with autocast(torch.bfloat16, enabled=on):
                return sa.solve(lambda t, y: -y * y, y0, T, rtol=1e-5, atol=1e-6).grid.h

        assert torch.equal(grid(True), grid(False))

    @every_half
    def test_allows_no_more_than_each_part_resolves(self, dtype):
        """A part in float32 is solved to its own tolerance beside one in half precision."""
        y0 = (start(), torch.ones(5))

        def func(t, y):
            with autocast(dtype):
                return Net()(t, y[0]), -3 * y[1]

        with pytest.warns(sa.ResolutionWarning):
            ys = sa.odeint(func, y0, T, rtol=1e-6, atol=1e-8)
        assert [part.dtype for part in ys] == [torch.float32, torch.float32]
        # The norm is over all components, of the first part 32 of which only the rounding counts.
        assert relative_error(ys[1][-1], math.exp(-3.0) * torch.ones(5)) < 1e-4

    def test_does_not_warn_of_tolerances_that_func_resolves(self):
        with autocast(torch.bfloat16):
            sa.odeint(Net(), start(), T, rtol=1e-3, atol=1e-3)


CASES = (
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.float64, torch.float32),
    (torch.float64, torch.bfloat16),
    (torch.float32, torch.float64),
    (torch.complex128, torch.complex64),
    (torch.complex64, torch.complex128),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.bfloat16),
)


class TestCasts:
    """func may return another precision than the state's, as torchdiffeq allows; no other dtype."""

    @pytest.mark.parametrize(
        ("gradient", "of_y", "of_f", "structure"),
        taking_turns([(*pair, structure) for structure in ("tensor", "tuple", "dict") for pair in CASES], ALL),
    )
    def test_is_part_of_f_and_of_its_transpose(self, gradient, structure, of_y, of_f):
        rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        other = torch.ones(2, dtype=of_y)

        def slope(y):
            return (-rate * y).to(of_f)

        def func(t, y):
            if structure == "tensor":
                return slope(y)
            return (slope(y[0]), -y[1]) if structure == "tuple" else {"z": slope(y["z"]), "v": -y["v"]}

        z = torch.linspace(0.5, 1.5, 3).to(of_y).requires_grad_()
        y0 = {"tensor": z, "tuple": (z, other), "dict": {"z": z, "v": other}}[structure]
        method = None if gradient == "mali" else "rk4"
        ys = sa.odeint(func, y0, T, method=method, options={"step_size": 0.05}, gradient=gradient, params=(rate,))
        z_s = ys if structure == "tensor" else ys[0] if structure == "tuple" else ys["z"]
        assert z_s.dtype == of_y
        of_z, of_rate = torch.autograd.grad(z_s[-1].real.double().sum(), (z, rate))
        assert of_z.dtype == of_y and of_rate.dtype == torch.float64
        coarsest = max(torch.finfo(of_f).eps, torch.finfo(of_y).eps)
        bound = 2 * coarsest + 2e-3 * (gradient in OWN_STEPS or gradient == "continuous")  # of their second order
        assert relative_error(of_z.real.double(), math.exp(-0.5) * torch.ones(3, dtype=torch.float64)) < bound + 1e-6
        assert relative_error(of_rate, -math.exp(-0.5) * z.real.double().sum()) < bound + 1e-6

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    @pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
    def test_other_kinds_are_refused(self, gradient, dtype):
        with pytest.raises(ValueError, match="only its precision may differ"):
            sa.odeint(lambda t, y: y.to(dtype), start().abs(), T, gradient=gradient)
        with pytest.raises(ValueError, match="only its precision may differ"):
            sa.odeint(lambda t, y: y.real, start().to(torch.complex64), T, gradient=gradient)


class TestTheRestOfTheInterface:
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
