"""A backward pass that finds another func than the forward pass had raises FunctionChanged, and no other does."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import GRADIENTS, FunctionChanged, LostGradient, NoiseWarning
from symplectic_adjoint.backward.recomputed_values import RecomputedValues
from symplectic_adjoint.errors import forget_warnings
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, OWN_STEPS
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
RECOMPUTING = [name for name in GRADIENTS if name != "backprop"]
ROUNDING = 1e-12  # as in test_exactness
recomputing_gradients = pytest.mark.parametrize("gradient", RECOMPUTING)
FURTHER = [
    sa.Symplectic(graphs=3),
    sa.Symplectic(keep="stages", offload="disk"),
    sa.Revolve(1),
    sa.Revolve(2, offload="disk"),
    sa.Reversible(0.9),
    sa.Mali(0.9),
]


def solve(func, *, gradient, steps=5, y0=None, t=T, method="rk4", **keywords):
    """Return ys on a fixed grid of this many steps."""
    strategy = GRADIENTS[gradient] if isinstance(gradient, str) else gradient
    method = None if strategy.own_tableau is not None else method
    keywords = {"options": {"step_size": 1.0 / steps}, **keywords}
    y0 = start().requires_grad_() if y0 is None else y0
    return sa.odeint(func, y0, t, method=method, gradient=gradient, **keywords)


def backward(ys, *, retain_graph=False):
    weighted_loss(ys).backward(retain_graph=retain_graph)


class Scaled:
    """net(t, y) times a number that is read from something that no solve can put back."""

    def __init__(self, kind):
        self.net, self.kind = SmallNet(), kind
        self.box = {"list": [1.0], "dict": {"u": 1.0}, "object": SimpleNamespace(u=1.0)}[kind]

    @property
    def u(self):
        return self.box.u if self.kind == "object" else self.box[0 if self.kind == "list" else "u"]

    @u.setter
    def u(self, value):
        if self.kind == "object":
            self.box.u = value
        else:
            self.box[0 if self.kind == "list" else "u"] = value

    def __call__(self, t, y):
        return self.net(t, y) * self.u


KINDS = ["list", "dict", "object"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [T, T[[0, 2]]], ids=["outputs", "end"])
@pytest.mark.parametrize("steps", [1, 7])
@recomputing_gradients
def test_a_value_rebound_between_the_passes_is_found(gradient, steps, t, kind):
    func = Scaled(kind)
    params = tuple(func.net.parameters())
    ys = solve(func, gradient=gradient, steps=steps, t=t, params=params)
    func.u = 1.0 + 1e-6
    with pytest.raises(FunctionChanged, match="Something that it reads has changed") as caught:
        backward(ys)
    assert T[0] <= caught.value.t <= T[-1] and caught.value.difference > 0.0
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("gradient", FURTHER, ids=str)
@pytest.mark.parametrize("steps", [1, 9])
def test_a_value_rebound_between_the_passes_is_found_by_every_option(gradient, steps):
    func = Scaled("list")
    ys = solve(func, gradient=gradient, steps=steps, params=tuple(func.net.parameters()))
    func.u = -1.0
    with pytest.raises(FunctionChanged):
        backward(ys)


@pytest.mark.parametrize("budget", [4000, 12000])  # a few states, and a few graphs
def test_a_value_rebound_between_the_passes_is_found_within_a_budget(budget):
    func = Scaled("dict")
    ys = solve(func, gradient=sa.Auto(budget), steps=40, params=tuple(func.net.parameters()))
    func.u = 2.0
    with pytest.raises(FunctionChanged):
        backward(ys)


@recomputing_gradients
def test_solves_that_share_a_func_and_a_backward_pass_are_told_apart(gradient):
    func, y = Scaled("list"), start()
    params = tuple(func.net.parameters())
    for u in (0.3, -1.0, 2.0):
        func.u = u
        y = solve(func, gradient=gradient, steps=1, y0=y, t=T[[0, 2]], params=params)[-1]
    with pytest.raises(FunctionChanged):
        y.sum().backward()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), random.random], ids=["numpy", "random"])
@recomputing_gradients
def test_draws_that_are_not_torchs_are_refused(gradient, draw):
    net = SmallNet()
    ys = solve(lambda t, y: net(t, y) * (1.0 + 0.01 * draw()), gradient=gradient, params=tuple(net.parameters()))
    with pytest.raises((FunctionChanged, sa.ReversalError), match=r"It returns other values each time|reversing"):
        backward(ys)


class Memo(nn.Module):
    """Keeps what it computed from a parameter at each time."""

    def __init__(self):
        super().__init__()
        self.net, self.embedding, self.kept = SmallNet(), nn.Linear(1, 3).double(), {}

    def forward(self, t, y):
        if float(t) not in self.kept:
            self.kept[float(t)] = self.embedding(t.reshape(1)).sin()
        return self.net(t, y) * self.kept[float(t)]


@pytest.mark.parametrize("steps", [1, 4])
@recomputing_gradients
def test_a_value_kept_from_a_parameter_in_a_later_call_is_found(gradient, steps):
    ys = solve(Memo(), gradient=gradient, steps=steps)
    with pytest.raises(LostGradient, match="only a value that it had computed from it and kept"):
        backward(ys)


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


@recomputing_gradients
def test_a_mode_switched_behind_a_plain_object_is_found(gradient):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallNet()

        def forward(self, t, y):
            return self.net(t, y) if self.training else self.net(t, y).tanh()

    holder = SimpleNamespace(net=Net())
    ys = solve(lambda t, y: holder.net(t, y), gradient=gradient, params=tuple(holder.net.parameters()))
    holder.net.eval()
    with pytest.raises(FunctionChanged):
        backward(ys)


@pytest.mark.parametrize("gradient", [name for name in RECOMPUTING if name not in (*OWN_STEPS, "continuous")])
def test_a_change_that_only_the_last_step_sees_is_found(gradient):
    net, box = SmallNet(), [1.0]
    ys = solve(
        lambda t, y: net(t, y) * (box[0] if t > 0.95 else 1.0),
        gradient=gradient,
        steps=10,
        params=tuple(net.parameters()),
    )
    box[0] = 1.1
    with pytest.raises(FunctionChanged) as caught:
        backward(ys)
    assert caught.value.t >= 0.9


@pytest.mark.parametrize("assign", ["data", "vector", "set_data"])
@pytest.mark.parametrize("steps", [1, 5])
@recomputing_gradients
def test_data_assigned_to_a_parameter_is_found(gradient, steps, assign):
    net = SmallNet()
    ys = solve(net, gradient=gradient, steps=steps)
    if assign == "vector":
        nn.utils.vector_to_parameters(1.01 * nn.utils.parameters_to_vector(net.parameters()), net.parameters())
    else:
        p = net.inner.weight
        new = p.detach() * 1.01
        p.data = new
    with pytest.raises(FunctionChanged):
        backward(ys)


def gradients(net, ys):
    return torch.autograd.grad(weighted_loss(ys), (*net.inner.parameters(), net.twice))


@recomputing_gradients
def test_data_swapped_out_and_back_is_no_change(gradient):
    """Averaged weights for an evaluation: the old values come back, at another address."""
    net = SmallNet()
    expected = gradients(net, solve(net, gradient=gradient))
    ys = solve(net, gradient=gradient)
    for p in net.parameters():
        kept = p.detach().clone()
        p.data = 1.01 * kept
        p.data = kept
    assert all(torch.equal(got, x) for got, x in zip(gradients(net, ys), expected, strict=True))


@pytest.mark.parametrize("change", ["values", "dtype", "shape"])
@recomputing_gradients
def test_other_data_is_found_by_the_data_alone(gradient, change):
    """Not by what func computes from it, nor by its address, at which memory that was freed may be used again."""
    net = SmallNet()
    ys = solve(net, gradient=gradient)
    weight = net.inner.weight
    rounded = torch.nextafter(weight, torch.zeros(()))  # less than the comparison of values of func can tell
    new = {"values": rounded, "dtype": weight.float(), "shape": weight[:1]}[change].detach().clone()
    weight.data = torch.empty(0)
    weight.data = new
    with pytest.raises(FunctionChanged, match=r"func\.inner\.weight was changed.*\.data was assigned"):
        backward(ys)


@pytest.mark.parametrize("steps", [1, 5])
@recomputing_gradients
def test_a_change_before_a_second_backward_pass_is_found(gradient, steps):
    func = Scaled("list")
    ys = solve(func, gradient=gradient, steps=steps, params=tuple(func.net.parameters()))
    first, second = (torch.autograd.grad(weighted_loss(ys), func.net.twice, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second) or relative_error(first, second) < ROUNDING
    func.u = 1.5
    with pytest.raises(FunctionChanged):
        torch.autograd.grad(weighted_loss(ys), func.net.twice)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("gradient", [name for name in RECOMPUTING if GRADIENTS[name].exact])
def test_a_change_before_a_double_backward_pass_is_found(gradient, steps):
    func, y0 = Scaled("dict"), start().requires_grad_()
    ys = solve(func, gradient=gradient, steps=steps, y0=y0, params=tuple(func.net.parameters()))
    func.u = 1.5
    with pytest.raises(FunctionChanged):
        torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("when", [None, 0.02, 0.5, 0.985])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca", "revolve", "baseline"])
def test_differences_are_selected_on_the_device(gradient, when, dtype, monkeypatch):
    """As on CUDA, where equal values cannot be told at once: of many differences the host reads the largest."""
    monkeypatch.setattr(RecomputedValues, "_surely_equal", lambda self, a, b: False)
    net, box = SmallNet().to(dtype), [1.0]

    def func(t, y):
        return net(t, y) * (box[0] if when is not None and abs(float(t) - when) < 0.004 else 1.0)

    ys = solve(func, gradient=gradient, steps=150, t=T[[0, 2]], y0=start().to(dtype), params=tuple(net.parameters()))
    box[0] = 1.1
    if when is None:
        backward(ys)
        return
    with pytest.raises(FunctionChanged) as caught:
        backward(ys)
    if gradient not in ("baseline", "revolve"):  # they notice it where the next kept state is reached
        assert caught.value.t == pytest.approx(when, abs=0.02)


@pytest.mark.parametrize("compile_", [False, True])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", "revolve"])
def test_parameters_changed_under_compiled_code_are_found(gradient, compile_):
    if compile_ and torch.__version__ < "2.13":
        pytest.skip("compile=True needs torch 2.13")
    net = SmallNet()
    for change in (False, True):
        ys = solve(net, gradient=gradient, method="dopri5", compile=compile_)
        if not change:
            backward(ys)
            continue
        net.outer.bias.data = net.outer.bias.detach() + 1e-6
        with pytest.raises(FunctionChanged):
            backward(ys)
    if compile_:
        torch._dynamo.reset()


@recomputing_gradients
def test_a_value_that_became_nan_is_found(gradient):
    func = Scaled("list")
    ys = solve(func, gradient=gradient, params=tuple(func.net.parameters()))
    func.u = float("nan")
    with pytest.raises(FunctionChanged):
        backward(ys)


@recomputing_gradients
def test_check_false_takes_func_as_it_is_now(gradient):
    strategy = replace(GRADIENTS[gradient], check=False)
    assert "check=False" in str(strategy) and strategy != GRADIENTS[gradient]
    func = Scaled("list")
    ys = solve(func, gradient=strategy, params=tuple(func.net.parameters()))
    func.u = 1.0 + 1e-11  # little enough for a reversal to come back
    backward(ys)
    assert func.net.twice.grad is not None


def test_check_gradient_reports_a_func_that_changes():
    net = SmallNet()
    report = sa.check_gradient(
        lambda t, y: net(t, y) * (1.0 + 0.01 * random.random()), start(), T, method="rk4", params=net.parameters()
    )
    assert not report.ok and isinstance(report.changed, FunctionChanged)
    assert "changed: func, evaluated again" in str(report)
    assert sa.check_gradient(net, start(), T, method="rk4").changed is None


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
