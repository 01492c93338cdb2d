"""Values and gradients against closed solutions, torchdiffeq and finite differences."""

from functools import cache, partial

import pytest
import torch
import torchdiffeq

import symplectic_adjoint as sa
from tests.gradients import EXACT, and_continuous, taking_turns
from tests.oracle import leaves
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import (
    FIXED,
    SHARED,
    Swing,
    error_bound,
    growth,
    initial,
    sine,
    stepping,
    swing_start,
    times,
)

# Problems with closed solutions: f -> (y(t) from y0 at t = 0, dy(t)/dy0).


def constant(t, y):
    return torch.full_like(y, 0.7)


def linear(t, y):
    return -0.4 * y if not y.is_complex() else (-0.4 + 1.5j) * y


PROBLEMS = {
    constant: lambda t, y0: (y0 + 0.7 * t, 1.0),
    sine: lambda t, y0: (y0 * growth(t), growth(t)),
    linear: lambda t, y0: (y0 * rate(t, y0), abs(rate(t, y0))),
}


def rate(t, y0):
    return torch.exp(torch.tensor(-0.4 + 1.5j if y0.is_complex() else -0.4, dtype=y0.dtype) * t)


DTYPES = {torch.float32: 1.0, torch.float64: -1.0, torch.complex64: -1.0, torch.complex128: 1.0}  # and a direction


@pytest.mark.parametrize(
    ("gradient", "method", "dtype", "direction"),
    and_continuous([
        *((method, torch.float64, 1.0) for method in SHARED),
        *((method, *dtype) for method in ("rk38", "dopri5") for dtype in DTYPES.items()),
    ]),
)  # fmt: skip
def test_closed_solutions_and_their_gradients(odeint, gradient, method, dtype, direction):
    t = direction * times(0.0, 0.4, 1.0)
    for func, solution in PROBLEMS.items() if dtype is torch.float64 else [(linear, PROBLEMS[linear])]:
        y0 = initial(dtype)
        ys = odeint(func, y0, t, **stepping(method, dtype))
        assert ys.dtype == dtype and ys.shape == (3, 2)
        ys[-1].abs().square().sum().backward()
        bound = error_bound(method, dtype)
        for time, y in zip(t.tolist(), ys.detach(), strict=True):
            expected, slope = solution(time, y0.detach())
            assert torch.allclose(y, expected, rtol=bound, atol=bound), (func.__name__, y, expected)
        # With L = |y(t)|^2 and y(t) = a y0 + b, torch's gradient, also a complex one, is 2 conj(a) y(t).
        a = rate(t[-1].item(), y0.detach()) if func is linear else torch.tensor(slope, dtype=dtype)
        assert torch.allclose(y0.grad, 2 * a.conj() * expected, rtol=4 * bound, atol=4 * bound), func.__name__


def comparison(method, dtype, direction):
    """Return times and keywords. With fixed steps both libraries take t as the grid.

    torchdiffeq's dopri8 has no outputs worth a comparison between its steps.
    """
    adaptive = sa.METHODS[method].adaptive
    t = direction * torch.linspace(0.0, 1.5, 2 if method == "dopri8" else 7, dtype=torch.float64)
    return t.to(dtype), stepping(method, dtype) if adaptive else {"method": method}


@cache
def theirs(method, dtype, direction, kind):
    t, keywords = comparison(method, dtype, direction)
    return torchdiffeq.odeint(Swing(), swing_start(kind, dtype), t, **keywords | {"method": SHARED[method]})


@pytest.mark.parametrize(
    ("gradient", "method", "dtype", "kind", "direction"),
    taking_turns([
        *((method, torch.float64, "tensor", -1.0) for method in SHARED),
        *((method, torch.float64, "tuple", 1.0) for method in SHARED),
        *((method, torch.float32, "tuple", -1.0) for method in ("rk38", "dopri5")),
    ]),
)  # fmt: skip
def test_values_agree_with_torchdiffeqs(odeint, gradient, method, dtype, kind, direction):
    y0, (t, keywords) = swing_start(kind, dtype), comparison(method, dtype, direction)
    for part in leaves(y0):
        part.requires_grad_()
    ys = odeint(Swing(), y0, t, **keywords)
    rounding = 1e-5 if dtype is torch.float32 else 1e-13  # the same steps, summed in another order
    bound = error_bound(method, dtype) if sa.METHODS[method].adaptive else rounding
    assert isinstance(ys, torch.Tensor if kind == "tensor" else tuple)
    for ours, other in zip(leaves(ys), leaves(theirs(method, dtype, direction, kind)), strict=True):
        assert ours.shape == other.shape and ours.dtype == other.dtype
        assert torch.allclose(ours, other, rtol=bound, atol=bound)


@pytest.mark.parametrize(("gradient", "method"), and_continuous(FIXED))
def test_gradients_on_a_fixed_grid_are_torchdiffeqs(gradient, method):
    """Compare with torchdiffeq.odeint by backpropagation, on the grid t. Continuous is off by the order of the step."""

    def gradients(odeint, method):
        y0 = torch.linspace(-1.0, 1.3, 3, dtype=torch.float64, requires_grad=True)
        t = torch.linspace(0.0, 1.0, 11, dtype=torch.float64, requires_grad=True)
        ys = odeint(Swing(), y0, t, method=method)
        return torch.autograd.grad((ys * torch.linspace(0.1, 1.0, 11, dtype=torch.float64)[:, None]).sum(), [y0, t])

    expected = gradients(torchdiffeq.odeint, SHARED[method])
    bound = 1e-12 if gradient in EXACT else 20 * 0.1 ** sa.METHODS[method].order
    for got, want in zip(gradients(partial(sa.odeint, gradient=gradient), method), expected, strict=True):
        assert (got - want).norm() < bound * want.norm()


@pytest.mark.parametrize(("gradient", "method"), taking_turns(SHARED))
def test_a_single_time_returns_the_initial_state_of_a_tuple_with_its_gradient(odeint, gradient, method):
    y0 = tuple(part.requires_grad_() for part in swing_start("tuple", torch.float64))
    ys = odeint(Swing(), y0, times(0.3), method=method)
    assert all(torch.equal(part, start[None]) for part, start in zip(ys, y0, strict=True))
    sum(part.sum() for part in ys).backward()
    assert all(torch.equal(start.grad, torch.ones_like(start)) for start in y0)


@pytest.mark.parametrize(
    ("gradient", "method"),
    taking_turns(["euler", "midpoint", "heun3", "rk38", "bosh3", "dopri5", "dopri8"], EXACT),
)
def test_gradcheck_of_y0_and_t_on_fixed_grids(gradient, method):
    y0 = torch.tensor([0.4, -0.9], dtype=torch.float64, requires_grad=True)
    t = times(0.0, 0.37, 0.9, requires_grad=True)

    def ys(y0, t):
        return sa.odeint(Swing(), y0, t, method=method, options={"step_size": 0.25}, gradient=gradient)

    # Differences of 1e-6 are good to 1e-9 here: they move no time across a grid point.
    assert torch.autograd.gradcheck(ys, (y0, t), atol=1e-7, rtol=1e-5, fast_mode=True)  # in a random direction


@pytest.mark.parametrize("gradient", EXACT)
def test_gradcheck_of_a_structure_and_of_complex_numbers(gradient):
    t = times(0.0, 0.4, 0.9, requires_grad=True)
    keywords = {"method": "rk38", "gradient": gradient}
    pair = tuple(part.requires_grad_() for part in swing_start("tuple", torch.float64))
    assert torch.autograd.gradcheck(
        lambda a, b, t: sa.odeint(Swing(), (a, b), t, **keywords), (*pair, t), fast_mode=True
    )
    y0 = initial(torch.complex128)
    assert torch.autograd.gradcheck(
        lambda y, t: sa.odeint(lambda t, y: 1j * torch.cos(t) * y, y, t, **keywords), (y0, t)
    )
