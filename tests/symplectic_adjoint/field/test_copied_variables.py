"""A variable that func reads is what a callback, an event function or the like has assigned to it."""

import functools
import types

import pytest
import torch
import torchdiffeq

import symplectic_adjoint as sa
from tests.gradients import FORWARD

T = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
FIXED = {"method": "midpoint", "options": {"step_size": 0.1}}
RATE = 1.0  # a global that functions here read and assign


@pytest.fixture(autouse=True)
def _first_rate():
    yield
    globals()["RATE"] = 1.0


def rate_at(t):
    return 3.0 if t > 0.41 else 1.0


def a_closure(scale):
    """Return func and what assigns the rate, each time to a new object."""
    rate = 1.0

    def func(t, y):
        return -rate * scale * y

    def assign(t):
        nonlocal rate
        rate = rate_at(t)

    return func, assign


def a_global(scale):
    def assign(t):
        global RATE
        RATE = rate_at(t)

    return (lambda t, y: -RATE * scale * y), assign


def a_global_by_its_name(scale):
    return (lambda t, y: -RATE * scale * y), lambda t: globals().__setitem__("RATE", rate_at(t))


def a_helpers_closure(scale):
    helper, assign = a_closure(scale)
    return (lambda t, y: helper(t, y)), assign


def a_partial(scale):
    helper, assign = a_closure(scale)
    return functools.partial(lambda f, t, y: f(t, y), helper), assign


def a_variable_without_a_value(scale):
    def func(t, y):
        try:
            return -rate * scale * y
        except NameError:
            return -scale * y

    def assign(t):
        nonlocal rate
        rate = 1.0
        if t < 0.41:
            del rate
        else:
            rate = 3.0

    rate = 1.0
    return func, assign


MAKERS = [a_closure, a_global, a_global_by_its_name, a_helpers_closure, a_partial, a_variable_without_a_value]
every_maker = pytest.mark.parametrize("make", MAKERS)


def with_callback(make, scale, name="callback_step"):
    func, assign = make(scale)

    def outer(t, y):
        return func(t, y)

    setattr(outer, name, lambda t, y, dt: assign(t))
    return outer


def leaves():
    return torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True), torch.tensor(
        0.7, dtype=torch.float64, requires_grad=True
    )


def expected(odeint=torchdiffeq.odeint):
    y0, scale = leaves()
    ys = odeint(with_callback(a_closure, scale), y0, T, **FIXED)
    return ys.detach(), torch.autograd.grad(ys.sum(), [y0, scale])


@every_maker
@pytest.mark.parametrize("gradient", FORWARD)
def test_a_callback_assigns_what_func_reads(make, gradient):
    y0, scale = leaves()
    ys = sa.odeint(with_callback(make, scale), y0, T, **FIXED, gradient=gradient)
    torch.testing.assert_close(ys.detach(), expected()[0], rtol=1e-14, atol=1e-14)


@every_maker
def test_backprop_is_exact_where_a_callback_assigns(make):
    y0, scale = leaves()
    ys = sa.odeint(with_callback(make, scale), y0, T, **FIXED, gradient="backprop")
    got = torch.autograd.grad(ys.sum(), [y0, scale])
    torch.testing.assert_close(got, expected()[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "backprop"])
@every_maker
def test_a_gradient_that_repeats_steps_is_refused_where_a_callback_assigns(make, gradient):
    given = {"options": FIXED["options"]} if gradient == "mali" else FIXED
    y0, scale = leaves()
    ys = sa.odeint(with_callback(make, scale), y0, T, **given, gradient=gradient)
    with pytest.raises((sa.FunctionChanged, sa.ReversalError)):
        ys.sum().backward()


@every_maker
def test_each_callback_of_an_adaptive_step_assigns(make):
    for name in ("callback_step", "callback_accept_step", "callback_reject_step"):
        held = types.SimpleNamespace(rate=1.0)

        def reference(t, y, held=held):
            return -held.rate * y

        setattr(reference, name, lambda t, y, dt, held=held: setattr(held, "rate", rate_at(t)))
        y0, t = torch.ones(2, dtype=torch.float64), T[[0, 2]]
        given = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-4, "options": {"first_step": 0.9}}
        ys = sa.odeint(with_callback(make, 1.0, name), y0, t, **given)
        torch.testing.assert_close(ys, sa.odeint(reference, y0, t, **given), rtol=1e-14, atol=1e-14)
        globals()["RATE"] = 1.0


@every_maker
def test_an_event_function_assigns_what_func_reads(make):
    func, assign = make(1.0)
    held = types.SimpleNamespace(rate=1.0)

    def event(t, y, assign):
        assign(t)
        return y[0] - 0.4

    def found(f, assign):
        given = {**FIXED, "event_fn": lambda t, y: event(t, y, assign)}
        return sa.odeint(f, torch.ones(1, dtype=torch.float64), T[[0, 2]], **given)

    got = found(func, assign)
    by_attribute = found(lambda t, y: -held.rate * y, lambda t: setattr(held, "rate", rate_at(t)))
    torch.testing.assert_close(got, by_attribute, rtol=1e-13, atol=1e-13)
    assert got[0] < 0.75  # 0.92 with the first rate


@every_maker
def test_a_solve_without_a_gradient_may_stop_where_stop_assigns(make):
    func, assign = make(1.0)
    options = {**FIXED["options"], "stop": lambda t, y: assign(t) or bool(t > 0.75)}
    y0 = torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        stopped = sa.solve(func, y0, T, method="midpoint", options=options).stopped_y
    held = types.SimpleNamespace(rate=1.0)
    options["stop"] = lambda t, y: setattr(held, "rate", rate_at(t)) or bool(t > 0.75)
    with torch.no_grad():
        by_attribute = sa.solve(lambda t, y: -held.rate * y, y0, T, method="midpoint", options=options).stopped_y
    torch.testing.assert_close(stopped, by_attribute, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
def test_steps_that_are_repeated_up_to_a_stop_are_refused_if_stop_assigns(gradient):
    y0, scale = leaves()
    func, assign = a_closure(scale)
    options = {**FIXED["options"], "stop": lambda t, y: assign(t) or bool(t > 0.75)}
    with pytest.raises(sa.FunctionChanged, match="rate, which func reads, was assigned during the solve"):
        sa.odeint(func, y0, T, method="midpoint", options=options, gradient=gradient)


def test_steps_that_are_repeated_up_to_a_failure_are_refused_if_a_callback_assigns():
    func = with_callback(a_closure, 1.0)
    options = {"first_step": 0.1, "max_num_steps": 5}
    with pytest.raises(sa.FunctionChanged, match="rate"):
        sa.odeint(func, torch.ones(1), torch.tensor([0.0, 9.0]), options=options, on_failure="return")


@pytest.mark.parametrize("gradient", FORWARD)
def test_the_gradient_of_a_repeated_time_is_refused_if_a_callback_assigns(gradient):
    y0, scale = leaves()
    t = torch.tensor([0.0, 0.3, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(sa.FunctionChanged):
        sa.odeint(with_callback(a_closure, scale), y0, t, **FIXED, gradient=gradient).sum().backward()


@every_maker
def test_callbacks_of_the_second_solve_assign_too(make):
    y0, scale = leaves()
    func = with_callback(make, scale)
    func.callback_step_adjoint = lambda t, y, dt: func.callback_step(t - 1e-9, y, dt)
    t = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    given = {"rtol": 1e-6, "atol": 1e-6, "options": {"step_t": t}}
    exact = sa.odeint(with_callback(make, scale), y0, t, **given, gradient="backprop")
    globals()["RATE"] = 1.0
    ys = sa.odeint(func, y0, t, **given, gradient="continuous")
    assert torch.equal(ys.detach(), exact.detach())
    wanted = torch.autograd.grad(exact[-1].sum(), [y0, scale])
    for _ in range(2):  # a second backward pass starts from the same values
        got = torch.autograd.grad(ys[-1].sum(), [y0, scale], retain_graph=True)
        torch.testing.assert_close(got, wanted, rtol=0.03, atol=0.0)  # one step has another rate


@every_maker
def test_a_variable_assigned_after_the_solve_does_not_change_its_gradient(make):
    y0, scale = leaves()
    func, assign = make(scale)
    got = sa.odeint(func, y0, T, **FIXED)
    assign(1.0)
    bars = torch.autograd.grad(got.sum(), [y0, scale])
    fresh = sa.odeint(lambda t, y: -scale * y, y0, T, **FIXED, gradient="backprop")
    torch.testing.assert_close(bars, torch.autograd.grad(fresh.sum(), [y0, scale]), rtol=1e-13, atol=1e-13)


def test_what_a_callback_assigned_last_is_kept_for_the_backward_pass():
    y0, scale = leaves()
    rate = 1.0

    def func(t, y):
        return -rate * scale * y

    def before(t, y, dt):
        nonlocal rate
        rate = 3.0

    func.callback_step = before
    ys = sa.odeint(func, y0, T, **FIXED)
    rate = 7.0
    got = torch.autograd.grad(ys.sum(), [y0, scale])
    fresh = sa.odeint(lambda t, y: -3.0 * scale * y, y0, T, **FIXED, gradient="backprop")
    torch.testing.assert_close(got, torch.autograd.grad(fresh.sum(), [y0, scale]), rtol=1e-13, atol=1e-13)


def test_programs_are_refused_where_a_callback_assigns():
    func = with_callback(a_closure, 1.0)
    with torch.no_grad(), pytest.raises(sa.NotCapturable, match="rate"):
        sa.odeint(func, torch.ones(2, dtype=torch.float64), T, **FIXED, capture=True)


def test_compiled_code_is_refused_where_a_callback_assigns():
    func = with_callback(a_closure, 1.0)
    with torch.no_grad(), pytest.raises(sa.UnsupportedCombination, match="rate"):
        sa.odeint(func, torch.ones(2, dtype=torch.float64), T, **FIXED, compile=True)


def test_capture_where_func_allows_it_calls_func_where_a_callback_assigns():
    y0, scale = leaves()
    ys = sa.odeint(with_callback(a_closure, scale), y0, T, **FIXED, capture="auto")
    torch.testing.assert_close(ys.detach(), expected()[0], rtol=1e-14, atol=1e-14)
