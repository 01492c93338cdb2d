"""Events at which the event function jumps: their time, and what has a gradient."""

import math
from itertools import product

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.solve.bracket import Bracket
from tests.gradients import EXACT, and_continuous, taking_turns
from tests.oracle import relative_error, replay

ROUNDING = 1e-12  # as in test_exactness
METHODS = ["dopri5", "dop853", "dopri8", "tsit5", "rk4", "euler"]
"""Dense output and landing, adaptive and fixed steps."""

LOCATED = ["dopri5", "dopri8", "rk4"]
"""One each of dense output with adaptive steps, landing, and dense output with fixed steps."""


def vector(*values, **keywords):
    return torch.tensor(values, **{"dtype": torch.float64, **keywords})


def options_for(method):
    return {"max_step": 0.4} if sa.METHODS[method].adaptive else {"step_size": 0.29}


def solved(func, y0, event_fn, method="dopri5", start=0.0, direction=1.0, **keywords):
    t = vector(start, start + direction)
    keywords = {"options": options_for(method), "rtol": 1e-9, "atol": 1e-9, **keywords}
    return sa.solve(func, y0, t, method=method, event_fn=event_fn, **keywords)


def decay(t, y):
    return -y


AT = 2.0
JUMPS_OF_TIME = {
    "one to zero": lambda t, y: torch.zeros_like(t) if t > AT else torch.ones_like(t),
    "one to zero, at the time itself": lambda t, y: torch.zeros_like(t) if t >= AT else torch.ones_like(t),
    "across zero": lambda t, y: torch.where(t < AT, 1.0, -1.0).to(t),
    "to almost zero": lambda t, y: torch.where(t < AT, 1.0, -1e-20).to(t),
    "from almost zero": lambda t, y: torch.where(t < AT, 1e-20, -1.0).to(t),
    "negative to zero": lambda t, y: torch.where(t < AT, -1.0, 0.0).to(t),
    "sign": lambda t, y: torch.sign(AT - t),
    "values that move": lambda t, y: torch.where(t < AT, 3.0 - t, -0.001 * t),
    "values of y": lambda t, y: torch.where(t < AT, y[0] + 2.0, -1e-9 * (y[0] + 2.0)),
    "there and back": lambda t, y: torch.where((t < AT) | ((t > AT + 0.01) & (t < AT + 0.02)), 1.0, -1.0).to(t),
    "infinite": lambda t, y: torch.where(t < AT, math.inf, -math.inf).to(t),
    "several": lambda t, y: torch.stack([y[0] - 1e-3, torch.where(t < AT, 1.0, 0.0).to(t), t + 1e6]),
}


@pytest.mark.parametrize("event_fn", JUMPS_OF_TIME.values(), ids=JUMPS_OF_TIME)
@pytest.mark.parametrize("method", METHODS)
def test_a_jump_at_a_time_is_found_to_rounding(method, event_fn):
    calls = 0

    def counted(t, y):
        nonlocal calls
        calls += 1
        return event_fn(t, y)

    with torch.no_grad():
        solution = solved(decay, vector(1.0), counted, method)
    times = [AT, AT + 0.01, AT + 0.02] if event_fn is JUMPS_OF_TIME["there and back"] else [AT]
    # Times near 2 are 4.4e-16 apart: both ends of the bracket lie within two of them.
    assert min(abs(solution.event_t.item() - x) for x in times) <= 4 * 4.5e-16
    assert calls <= solution.stats.accepted + 4 * 53  # four a bit at most


@pytest.mark.parametrize("method", METHODS)
def test_a_jump_is_found_backwards_in_time(method):
    def event_fn(t, y):
        return torch.zeros_like(t) if t < -AT else torch.ones_like(t)

    solution = solved(lambda t, y: y, vector(1.0), event_fn, method, direction=-1.0)
    assert abs(solution.event_t.item() + AT) <= 4 * 4.5e-16


@pytest.mark.parametrize("at", [0.0, 1e-8, 0.58, 1e4], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_jump_is_found_wherever_it_lies(method, at):
    """At the origin of time, where numbers are dense, at the end of a fixed step, and where they are sparse."""

    def event_fn(t, y):
        return torch.zeros_like(t) if t > at else torch.ones_like(t)

    start = at - 0.58
    solution = solved(decay, vector(1.0), event_fn, method, start=start)
    # A step's end t + h is rounded to the larger of the two, and so is the time that a step lands on.
    assert abs(solution.event_t.item() - at) <= 4 * math.ulp(max(abs(at), 0.58))


def test_a_jump_in_a_step_a_million_times_longer_is_found():
    event_fn = JUMPS_OF_TIME["one to zero"]
    options = {"first_step": 1e6}
    solution = solved(lambda t, y: torch.zeros_like(y), vector(1.0), event_fn, options=options)
    assert solution.event_t.item() == pytest.approx(AT, abs=1e-12)  # 1e6 times 2^-20 times rounding


THRESHOLDS = {
    "across zero": lambda t, y: torch.where(y[0] > 0.5, 1.0, -1.0),
    "to zero": lambda t, y: (y[0] > 0.5).double(),
    "sign": lambda t, y: torch.sign(y[0] - 0.5),
    "in Python": lambda t, y: torch.ones_like(t) if y[0].item() > 0.5 else -torch.ones_like(t),
    "of a difference": lambda t, y: torch.where(y[0] - y[1] > 0.5, y.sum(), -y.sum()),
    "one of several": lambda t, y: torch.stack([y[0] + 1.0, torch.where(y[0] > 0.5, 1.0, 0.0)]),
    "flat beyond": lambda t, y: torch.relu(y[0] - 0.5),
}


@pytest.mark.parametrize("event_fn", THRESHOLDS.values(), ids=THRESHOLDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_of_the_state_is_found_to_rounding(method, event_fn):
    y0 = vector(1.0, 0.0)
    smooth = solved(decay, y0, lambda t, y: y[0] - 0.5, method)
    solution = solved(decay, y0, event_fn, method)
    # y' = -0.5 there. The dense output of dop853 has a rounding error of 5e-15.
    assert solution.event_t.item() == pytest.approx(smooth.event_t.item(), abs=2e-14)
    assert solution.ys[-1, 0].item() == pytest.approx(0.5, abs=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_a_float32_solve_finds_a_jump_to_its_own_rounding(method):
    y0 = vector(1.0, 1.0, dtype=torch.float32)
    keywords = {"rtol": 1e-5, "atol": 1e-5}
    of_time = solved(decay, y0, JUMPS_OF_TIME["one to zero"], method, **keywords)
    assert abs(of_time.event_t.item() - AT) <= 4 * 2.4e-7  # the spacing of float32 near 2
    of_state = solved(decay, y0, lambda t, y: torch.where(y[0] > 0.5, 1.0, 0.0), method, **keywords)
    assert of_state.ys[-1, 0].item() == pytest.approx(0.5, abs=4 * 6e-8)  # near 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_tuple_state_has_events_that_jump(method):
    y0 = (vector(1.0), {"x": vector([2.0, 3.0])})
    solution = solved(
        lambda t, y: (-y[0], {"x": -y[1]["x"]}), y0,
        lambda t, y: torch.where((y[1]["x"] > 0.5).any(), y[0].sum(), -y[0].sum()), method,
    )  # fmt: skip
    assert solution.ys[1]["x"][-1, 0, 1].item() == pytest.approx(0.5, abs=1e-14)


@pytest.mark.parametrize(("gradient", "name", "method"), taking_turns(product(JUMPS_OF_TIME, LOCATED), EXACT))
def test_y_at_a_jump_of_time_has_the_gradient_at_that_time(gradient, name, method):
    rate, y0 = vector(0.7).requires_grad_(), vector(1.0, 2.0, requires_grad=True)

    def func(t, y):
        return -rate * y * torch.cos(t)

    solution = solved(func, y0, JUMPS_OF_TIME[name], method, params=(rate,), gradient=gradient, rtol=1e-5, atol=1e-5)
    expected = replay(func, sa.METHODS[method], solution.grid, y0, vector(0.0, solution.event_t.item()))
    for j in (0, -1):
        ours = torch.autograd.grad((solution.ys[j] ** 2).sum(), (y0, rate), retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad((expected[j] ** 2).sum(), (y0, rate), retain_graph=True, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            assert relative_error(torch.zeros(1) if a is None else a, torch.zeros(1) if b is None else b) < ROUNDING
    with pytest.raises(sa.SolverError, match=r"the time of such an event has no gradient.*use event_t.detach\(\)"):
        torch.autograd.grad(solution.event_t, y0)


@pytest.mark.parametrize(("gradient", "name", "method"), and_continuous(product(THRESHOLDS, LOCATED)))
def test_a_gradient_through_a_threshold_is_refused_and_others_are_right(gradient, name, method):
    y0 = vector(1.0, 0.0, requires_grad=True)
    solution = solved(decay, y0, THRESHOLDS[name], method, gradient=gradient)
    assert torch.equal(torch.autograd.grad(solution.ys[0].sum(), y0, retain_graph=True)[0], vector(1.0, 1.0))
    assert not torch.autograd.grad(0.0 * solution.ys.sum() + 0.0 * solution.event_t, y0, retain_graph=True)[0].any()
    for output in (solution.event_t, solution.ys[-1].sum()):
        with pytest.raises(sa.SolverError, match="the time of such an event has no gradient"):
            torch.autograd.grad(output, y0, retain_graph=True)
    # What does not change along the solution does not change with the time of the event either.
    # The error of the continuous adjoint's second solve with rk4 is 8e-5.
    assert torch.autograd.grad(solution.ys[-1, 1], y0)[0].tolist() == [0.0, pytest.approx(0.5, rel=1e-4)]


PARAMETERS = {
    "compared": lambda p: lambda t, y: torch.ones_like(t) if t < p else torch.zeros_like(t),
    "read": lambda p: lambda t, y: torch.sign(p.item() - t),
    "sign": lambda p: lambda t, y: torch.sign(p - t),
    "where": lambda p: lambda t, y: torch.where(t < p, 1.0, -1.0).to(t),
    "with y": lambda p: lambda t, y: torch.where(t + 1e-3 * y[0] < 2.0, 1.0, -1.0).to(t),
}


@pytest.mark.parametrize("make", PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize("method", LOCATED)
def test_a_jump_whose_time_depends_on_more_than_time_is_no_constant(method, make):
    """A parameter that requires a gradient, or the state, moves the jump unseen by autograd."""
    p, y0 = torch.tensor(AT, dtype=torch.float64, requires_grad=True), vector(1.0, requires_grad=True)
    solution = solved(decay, y0, make(p), method)
    with pytest.raises(sa.SolverError, match="the time of such an event has no gradient"):
        solution.ys[-1].sum().backward()
    assert p.grad is None and y0.grad is None


def test_a_smooth_event_with_much_rounding_error_is_no_jump():
    """The values lie on a staircase of 1e-10, the resolution of numbers near 1e6, and cross it slowly."""
    y0 = vector(1e6 + 0.015, requires_grad=True)
    solution = solved(lambda t, y: -0.02 * torch.ones_like(y), y0, lambda t, y: y[0] - 1e6, method="rk4")
    (of_y0,) = torch.autograd.grad(solution.event_t, y0)
    assert of_y0.item() == pytest.approx(1 / 0.02, rel=1e-12)


def test_a_second_derivative_at_a_jump_of_time_is_that_at_a_fixed_time():
    y0 = vector(1.0, requires_grad=True)
    solution = solved(lambda t, y: -(y**2), y0, JUMPS_OF_TIME["one to zero"], rtol=1e-10, atol=1e-10)
    (first,) = torch.autograd.grad(solution.ys[-1].sum(), y0, create_graph=True)
    (second,) = torch.autograd.grad(first, y0)
    # y = y0 / (1 + 2 y0), whose derivatives at y0 = 1 are 1/9 and -4/27.
    assert (first.item(), second.item()) == pytest.approx((1 / 9, -4 / 27), rel=1e-8)


def test_a_solve_continues_from_a_jump_as_from_any_time():
    y0, t = vector(1.0, requires_grad=True), vector(0.0)[0]
    y = y0
    for n in range(1, 4):
        event_t, ys = sa.odeint_event(decay, y, t, event_fn=lambda t, y, n=n: torch.sign(t - n) - 0.5, rtol=1e-9)
        y, t = ys[-1], event_t.detach()
        assert t.item() == pytest.approx(n, abs=1e-14)
    assert torch.autograd.grad(y.sum(), y0)[0].item() == pytest.approx(math.exp(-3.0), rel=1e-8)


@pytest.mark.parametrize(
    "values",
    [
        lambda x: 1.0 if x < 0.3 else -1.0,
        lambda x: 1.0 if x < 0.3 else 0.0,
        lambda x: 1e-300 if x < 0.3 else -1.0,
        lambda x: math.exp(20 * (0.3 - x)) if x < 0.3 else -math.exp(50 * x),
        lambda x: math.copysign(abs(0.3 - x) ** 0.1, 0.3 - x),
        lambda x: (0.3 - x) ** 19,
    ],
    ids=["step", "to zero", "lopsided", "exponential", "steep", "flat"],
)
def test_a_bracket_of_anything_converges_in_few_updates(values):
    bracket = Bracket(0.0, 1.0, values(0.0), values(1.0), 2.0**-52)
    updates = 0
    while not bracket.converged:
        x = bracket.guess()
        bracket.update(x, values(x))
        updates += 1
    assert bracket.low <= bracket.high and values(bracket.low) > 0.0 >= values(bracket.high)
    # A root of 19th order is zero in float64 over an interval of 1e-17^(1/19), left of which its values still differ.
    assert bracket.high == pytest.approx(0.3, abs=1e-15) or values(0.3 - 1e-3) < 1e-50
    assert updates <= 90  # bisection takes 53
