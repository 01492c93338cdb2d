"""A func that is the same in both passes raises nothing, however its values are rounded."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import GRADIENTS, NoiseWarning
from symplectic_adjoint.errors import forget_warnings
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, OWN_STEPS
from tests.oracle import relative_error
from tests.symplectic_adjoint.backward.fixed_step_solves import (
    RECOMPUTING,
    ROUNDING,
    T,
    backward,
    recomputing_gradients,
    solve,
)


@pytest.mark.parametrize("gradient", EXACT)
def test_parameters_used_at_some_times_only_are_no_kept_values(gradient):
    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = SmallNet(seed=1), SmallNet(seed=2)

        def forward(self, t, y):
            return self.early(t, y) if t < 0.5 else self.late(t, y)

    def gradients(gradient):
        func = Switched()
        # A step ends on the switch, where the two sides of a time differ.
        ys = solve(func, gradient=gradient, steps=4)
        return torch.autograd.grad(weighted_loss(ys), list(func.parameters()), allow_unused=True)

    for got, expected in zip(gradients(gradient), gradients("backprop"), strict=True):
        assert relative_error(got, expected) < ROUNDING


class Noisy(nn.Module):
    """A field with relative noise of this size, from a generator of its own."""

    def __init__(self, size):
        super().__init__()
        self.net, self.size, self.generator = SmallNet().float(), size, torch.Generator().manual_seed(0)

    def forward(self, t, y):
        return self.net(t, y) * (1.0 + self.size * torch.randn(y.shape, generator=self.generator))


@pytest.mark.parametrize(("size", "warns"), [(1e-7, False), (8e-5, True)])
@pytest.mark.parametrize("gradient", [name for name in RECOMPUTING if name not in OWN_STEPS])
def test_noise_is_no_change(gradient, size, warns, recwarn):
    forget_warnings()
    y0 = start(batch=40).float()
    func = Noisy(size)
    ys = solve(func, gradient=gradient, y0=y0, t=T[[0, 2]].float(), steps=5)
    backward(ys)
    exact = Noisy(0.0)
    backward(solve(exact, gradient="backprop", y0=y0, t=T[[0, 2]].float(), steps=5))
    # The noise of each call changes the gradient by its own size; the continuous one is not that of the steps.
    bound = 0.05 if gradient == "continuous" else 1e-3
    assert relative_error(func.net.inner.weight.grad, exact.net.inner.weight.grad) < bound
    given = [x for x in recwarn.list if issubclass(x.category, NoiseWarning)]
    assert len(given) <= 1 and (warns or not given)
    if warns and gradient in ("symplectic", "stages", "aca", "revolve"):
        assert given


def quiet(func, y0, t=T, **keywords):
    """Solve and differentiate; any warning of noise is an error under pytest's filters."""
    ys = sa.odeint(func, y0, t, **keywords)
    parts = ys if isinstance(ys, tuple) else (ys,)
    sum(x.abs().square().sum().float() for x in parts).backward()


class TestNoFalseAlarm:
    @recomputing_gradients
    @pytest.mark.parametrize("method", ["euler", "dopri5", "dop853", "bosh3"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_low_precision(self, gradient, method, dtype):
        if GRADIENTS[gradient].own_tableau is not None:
            method = None
        net = SmallNet().to(dtype)
        options = {"step_size": 0.125} if dtype == torch.bfloat16 or gradient in OWN_STEPS else None
        if dtype == torch.bfloat16 and gradient in OWN_STEPS:
            pytest.skip("reversing steps needs more digits than bfloat16 has")
        quiet(net, start().to(dtype), rtol=1e-3, atol=1e-3, method=method, gradient=gradient, options=options)

    @recomputing_gradients
    def test_autocast(self, gradient):
        net = nn.Linear(3, 3)
        func = lambda t, y: net(y).float().tanh()  # noqa: E731 (a closure over net)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ys = solve(func, gradient=gradient, y0=start().float(), params=tuple(net.parameters()), t=T.float())
        ys.sum().backward()

    @pytest.mark.parametrize("gradient", ["symplectic", "stages", "revolve", "aca", "baseline"])
    def test_many_steps(self, gradient):
        a = torch.tensor([[-0.1, 1.0], [-1.0, -0.1]], requires_grad=True)
        y0 = torch.tensor([[1.0, 0.0]])
        ys = sa.odeint(
            lambda t, y: y @ a, y0, torch.tensor([0.0, 10.0]), method="euler", options={"step_size": 1e-3},
            gradient=gradient, params=(a,),
        )  # fmt: skip
        ys[-1].sum().backward()

    @recomputing_gradients
    @pytest.mark.parametrize("rate", [-40.0, 25.0])
    def test_fast_decay_and_growth(self, gradient, rate):
        if gradient in OWN_STEPS:
            pytest.skip("so stiff a problem cannot be reversed: ReversalError says so")
        a = torch.tensor(rate, dtype=torch.float64, requires_grad=True)
        func = lambda t, y: a * y  # noqa: E731 (a closure over a)
        ys = solve(func, gradient=gradient, steps=200, t=T[[0, 2]], params=(a,))
        ys.sum().backward()

    @recomputing_gradients
    def test_complex_states(self, gradient):
        a = torch.tensor([1j, -0.5 + 1j, 0.1j], requires_grad=True)
        func = lambda t, y: a * y  # noqa: E731 (a closure over a)
        y0 = start().to(torch.complex64)
        quiet(func, y0, rtol=1e-5, atol=1e-5, gradient=gradient, params=(a,), options={"step_size": 0.1})

    @recomputing_gradients
    def test_jumps(self, gradient):
        if not GRADIENTS[gradient].crosses_jumps:
            pytest.skip("its steps cannot cross a jump")
        net = SmallNet()
        func = lambda t, y: net(t, y) + (1.0 if t > 0.5 else 0.0)  # noqa: E731 (a closure over net)
        quiet(func, start(), gradient=gradient, options={"jump_t": [0.5]}, params=tuple(net.parameters()))

    @recomputing_gradients
    def test_events(self, gradient):
        net = SmallNet()
        t, y = sa.odeint(
            net, start(batch=1).requires_grad_(), T[[0, 2]], gradient=gradient, rtol=1e-5, atol=1e-5,
            event_fn=lambda t, y: 0.3 - t,
        )  # fmt: skip
        (t + y.sum()).backward()
        assert net.twice.grad is not None

    @recomputing_gradients
    def test_times_and_dense_outputs(self, gradient):
        net, t = SmallNet(), torch.linspace(0.0, 1.0, 23, dtype=torch.float64, requires_grad=True)
        quiet(net, start().requires_grad_(), t, gradient=gradient, rtol=1e-4, atol=1e-4)
        assert t.grad is not None

    @pytest.mark.parametrize("gradient", [name for name in RECOMPUTING if name not in OWN_STEPS])
    def test_a_solve_that_failed_and_returned(self, gradient):
        a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        func = lambda t, y: a * y * y  # noqa: E731 (a closure over a)
        ys = solve(
            func, gradient=gradient, y0=torch.full((2, 2), 3.0, dtype=torch.float64), steps=50, params=(a,),
            on_failure="return", t=10.0 * T,
        )  # fmt: skip
        ys[0].sum().backward()

    @pytest.mark.parametrize("shape", [(), (1,), (2, 1), (9,), (3, 5), (0,)])
    @recomputing_gradients
    def test_tiny_states(self, gradient, shape):
        a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        func = lambda t, y: a * y + t  # noqa: E731 (a closure over a)
        y0 = torch.ones(shape, dtype=torch.float64)
        solve(func, gradient=gradient, y0=y0, params=(a,)).sum().backward()
