"""Rounding that reversible steps amplify: the gradient is as near as autograd's own, or there is a ReversalError."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.methods.leapfrog import leapfrog
from tests.fields import SmallNet
from tests.oracle import flatten, leaves, relative_error, replay, unflatten

PAIRS = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}
STEPS = {"adaptive": {}, "fixed": {"step_size": 0.1}}
BF16, FP16 = torch.bfloat16, torch.float16

own_steps = pytest.mark.parametrize("gradient", list(PAIRS))
every_steps = pytest.mark.parametrize("steps", list(STEPS))


class Decay(nn.Module):
    """y' = -rate y + sin(W y) / 2, for each part, computed in another dtype or under autocast if one is given."""

    def __init__(self, rate, *, inside=None, autocast=None):
        super().__init__()
        drawn = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
        self.W = nn.Parameter(drawn / drawn.norm())
        self.rate, self.inside, self.autocast = rate, inside, autocast

    def forward(self, t, y):
        if isinstance(y, tuple):
            return tuple(self(t, part) for part in y)
        dtype = self.inside or y.dtype
        with torch.autocast("cpu", dtype=self.autocast) if self.autocast else nullcontext():
            x = y.to(dtype)
            # The decay too is a matrix product, so that autocast rounds it.
            k = (0.5 * torch.sin(x @ self.W.to(x.dtype)) - self.rate * x) @ torch.eye(3, dtype=x.dtype)
        return k.to(y.dtype)


# How f comes to compute in low precision: (that precision, the state's, arguments of Decay, autocast around the solve).
LOW = {
    "bfloat16 state": (BF16, BF16, {}, None),
    "float16 state": (FP16, FP16, {}, None),
    "autocast": (BF16, torch.float32, {}, BF16),
    "autocast float16": (FP16, torch.float32, {}, FP16),
    "autocast inside func": (BF16, torch.float32, {"autocast": BF16}, None),
    "casts inside func": (BF16, torch.float32, {"inside": BF16}, None),
    "casts to float16 inside func": (FP16, torch.float32, {"inside": FP16}, None),
    "casts of a float64 state": (BF16, torch.float64, {"inside": BF16}, None),
}
every_low = pytest.mark.parametrize("low", list(LOW))


def a_state(dtype, structured):
    drawn = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    return (drawn[0], drawn[1]) if structured else drawn


def got_and_exact(gradient, low, rate, *, steps="fixed", structured=False, create_graph=False):
    """Return the gradient of |y(1)|^2 / |y(1)|_float64^2, and that of the same steps in float64."""
    _, dtype, given, around = LOW[low]
    method = {"mali": None}.get(gradient, "dopri5" if steps == "adaptive" else "rk4")
    func, y0, t = Decay(rate, **given), a_state(dtype, structured), torch.tensor([0.0, 1.0])
    if dtype != torch.float32:
        func = func.to(dtype)
    for part in leaves(y0):
        part.requires_grad_()
    with torch.autocast("cpu", dtype=around) if around else nullcontext():
        found = sa.solve(func, y0, t, gradient=gradient, method=method, options=STEPS[steps], rtol=1e-3, atol=1e-3)
    exact, exact_y0 = Decay(rate).double(), a_state(dtype, structured)
    exact.W.data = func.W.data.double()
    exact_y0 = tuple(x.double() for x in exact_y0) if structured else exact_y0.double()
    for part in leaves(exact_y0):
        part.requires_grad_()
    tableau = leapfrog(1.0) if gradient == "mali" else sa.METHODS[method]

    def of_flat(t, flat):
        return flatten(exact(t, unflatten(flat, exact_y0)))

    ys = replay(of_flat, tableau, found.grid, flatten(exact_y0), t.double(), PAIRS.get(gradient))
    scale = ys[-1].detach().square().sum()
    expected = torch.autograd.grad(ys[-1].square().sum() / scale, [*leaves(exact_y0), exact.W])
    loss = ends(found.ys).double().square().sum() / scale
    return torch.autograd.grad(loss, [*leaves(y0), func.W], create_graph=create_graph), expected


def ends(ys):
    return torch.cat([part[-1].flatten() for part in leaves(ys)])


def error(bars, exact):
    return max(relative_error(a.double(), b) for a, b in zip(bars, exact, strict=True))


@every_low
@pytest.mark.parametrize(
    ("gradient", "steps"), [("reversible", "adaptive"), ("reversible", "fixed"), ("mali", "fixed")]
)
@pytest.mark.parametrize("structured", [False, True], ids=["tensor", "tuple"])
def test_a_solve_that_amplifies_the_rounding_of_f_is_an_error(gradient, low, steps, structured):
    """One that decays by exp(-4): what f rounds grows by exp(4) in the second state, to a good part of y.

    Adaptive steps of mali become so many that it does not: see below.
    """
    with pytest.raises(sa.ReversalError, match="rounding"):
        got_and_exact(gradient, low, 4.0, steps=steps, structured=structured)


@every_low
@own_steps
@every_steps
@pytest.mark.parametrize("structured", [False, True], ids=["tensor", "tuple"])
def test_a_solve_that_does_not_is_as_near_as_autograds_own(gradient, low, steps, structured):
    got, exact = got_and_exact(gradient, low, 0.5, steps=steps, structured=structured)
    own, own_exact = got_and_exact("symplectic", low, 0.5, steps=steps, structured=structured)
    eps = torch.finfo(LOW[low][0]).eps
    # exp(0.5) once there and once back, and as many roundings again in the second state; eps where autograd's own
    # errors happen to cancel.
    assert error(got, exact) < 4 * error(own, own_exact) + 2 * eps


@every_low
@own_steps
@every_steps
def test_whatever_the_decay_no_gradient_is_far_from_autograds_own(gradient, low, steps):
    eps, raised = torch.finfo(LOW[low][0]).eps, []
    for rate in (1.0, 1.5, 2.0, 4.0):
        try:
            got, exact = got_and_exact(gradient, low, rate, steps=steps)
        except sa.ReversalError:
            raised.append(rate)
            continue
        # Up to 8 times autograd's own error is accepted, which is some eps: ten rounded operations a call.
        assert error(got, exact) < 8 * 4 * eps, (rate, raised)
    assert raised or (gradient, steps) == ("mali", "adaptive")
    assert min(raised, default=4.0) > 1.0


@every_low
@own_steps
def test_double_backward_through_such_a_solve_is_an_error_too(gradient, low):
    """It reverses nothing, but the steps are the same."""
    with pytest.raises(sa.ReversalError, match="rounding"):
        got_and_exact(gradient, low, 4.0, create_graph=True)
    got, exact = got_and_exact(gradient, low, 0.5, create_graph=True)
    assert error(got, exact) < 4 * torch.finfo(LOW[low][0]).eps  # some rounded operations a call


@own_steps
def test_float32_amplified_beyond_half_of_its_digits_is_an_error(gradient):
    """exp(9) forward and exp(9) relative to what is left of y: 1e-7 becomes more than y."""
    rate = torch.tensor(9.0, requires_grad=True)
    y0 = torch.tensor([1.0], requires_grad=True)
    method = None if gradient == "mali" else "rk4"
    keywords = {"method": method, "options": {"step_size": 0.02}, "gradient": gradient}
    ys = sa.odeint(lambda t, y: -rate * y, y0, torch.tensor([0.0, 1.0]), **keywords)
    with pytest.raises(sa.ReversalError):
        ys[-1].log().sum().backward()


@own_steps
def test_float64_carries_the_same_solve(gradient):
    rate = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    method = None if gradient == "mali" else "rk4"
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ys = sa.odeint(lambda t, y: -rate * y, y0, t, method=method, options={"step_size": 0.02}, gradient=gradient)
    got = torch.autograd.grad(ys[-1].log().sum(), (rate, y0), retain_graph=True)
    expected = torch.autograd.grad(ys[-1].log().sum(), (rate, y0), create_graph=True)
    # Rounding of 2e-16, amplified as said above: by exp(18), to 1e-8.
    assert error(got, expected) < 1e-6


@own_steps
def test_a_large_part_of_a_tuple_does_not_hide_one_that_is_not_restored(gradient):
    rate = torch.tensor(9.0, requires_grad=True)
    y0 = (torch.tensor([1e6]), torch.tensor([1.0], requires_grad=True))
    method = None if gradient == "mali" else "rk4"
    ys = sa.odeint(
        lambda t, y: (torch.zeros_like(y[0]), -rate * y[1]), y0, torch.tensor([0.0, 1.0]), method=method,
        options={"step_size": 0.02}, gradient=gradient,
    )  # fmt: skip
    with pytest.raises(sa.ReversalError):
        (ys[0].sum() + ys[1][-1].log().sum()).backward()


@own_steps
@every_steps
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, BF16])
def test_a_start_of_zeros_is_restored(gradient, steps, dtype):
    """A hidden state, or the log-density beside it, starts at zero: there is no relative error there."""
    func, y0 = SmallNet().to(dtype), torch.zeros(4, 3, dtype=dtype, requires_grad=True)
    method = None if gradient == "mali" else "dopri5"
    t = torch.tensor([0.0, 0.4], dtype=torch.float64)
    found = sa.solve(func, y0, t, gradient=gradient, method=method, options=STEPS[steps], rtol=1e-3, atol=1e-3)
    exact, exact_y0 = SmallNet(), torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    exact.load_state_dict(func.state_dict())
    tableau = leapfrog(1.0) if gradient == "mali" else sa.METHODS["dopri5"]
    ys = replay(exact, tableau, found.grid, exact_y0, t, PAIRS[gradient])
    got = torch.autograd.grad(found.ys[-1].double().square().sum(), (y0, func.outer.weight))
    expected = torch.autograd.grad(ys[-1].square().sum(), (exact_y0, exact.outer.weight))
    # Rounding errors of some ten operations of a call, which add up over some tens of calls in float64 and float32.
    assert error(got, expected) < {torch.float64: 1e-12, torch.float32: 1e-4, BF16: 8 * 2.0**-7}[dtype]


@own_steps
def test_a_part_that_is_zero_and_at_rest_at_the_start_is_restored(gradient):
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0 = (torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ys = sa.odeint(
        lambda t, y: (-weight * y[0], torch.sin(t) * y[0]), y0, t, options={"step_size": 0.05}, gradient=gradient
    )
    (bar,) = torch.autograd.grad(ys[1][-1].sum(), weight, retain_graph=True)
    (same,) = torch.autograd.grad(ys[1][-1].sum(), weight, create_graph=True)
    assert relative_error(bar, same) < 1e-12  # float64, over some tens of calls


@own_steps
def test_f_in_float32_beside_a_state_in_float64_gives_a_gradient_at_the_level_of_float32(gradient):
    func, y0 = SmallNet().float(), torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y0.requires_grad_()

    def in_float32(t, y):
        return func(t.float(), y.float()).double()

    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    params = tuple(func.parameters())
    bars = []
    for one in (gradient, "symplectic"):
        ys = sa.odeint(in_float32, y0, t, gradient=one, options={"step_size": 0.02}, params=params)
        bars.append(torch.autograd.grad(ys[-1].square().sum(), (y0, func.outer.weight)))
    # mali's own error of order 2, 50 steps; reversible's is of order 4 and below what float32 rounds.
    assert error(bars[0], [x.double() for x in bars[1]]) < (1e-3 if gradient == "mali" else 1e-5)


@own_steps
def test_a_gradient_in_float16_that_overflows_is_returned_as_it_is(gradient):
    """torch.amp.GradScaler needs it: the check does not take infinity for amplified rounding."""
    func, y0 = Decay(0.5).half(), a_state(FP16, False).requires_grad_()
    ys = sa.odeint(
        func, y0, torch.tensor([0.0, 1.0]), gradient=gradient, options={"step_size": 0.1},
        method=None if gradient == "mali" else "rk4",
    )  # fmt: skip
    (bar,) = torch.autograd.grad(ys[-1].float().sum() * float("inf"), y0)
    assert not torch.isfinite(bar).all()
