"""A variable that func reads stays the caller's if code that func calls assigns it."""

import functools
import types
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field.reach_walk import reach_of
from tests.symplectic_adjoint.field.test_copied_variables import FIXED, T, leaves, rate_at

RATE = 1.0  # a global that functions here read and assign


@pytest.fixture(autouse=True)
def _first_rate():
    yield
    globals()["RATE"] = 1.0


class Schedule:
    def tick(self, t):
        global RATE
        RATE = rate_at(t)

    def __call__(self, t):
        self.tick(t)

    def __getitem__(self, t):
        self.tick(t)

    @classmethod
    def of_the_class(cls, t):
        Schedule.at_a_static(t)

    @staticmethod
    def at_a_static(t):
        global RATE
        RATE = rate_at(t)

    @property
    def ticked(self):
        self.tick(self.t)

    @functools.cached_property
    def table(self):
        return Schedule().tick

    @property
    def now(self):
        return self

    @now.setter
    def now(self, t):
        self.tick(t)


class Ticking(nn.Module):
    def forward(self, t):
        global RATE
        RATE = rate_at(t)


class Slotted:
    __slots__ = ("tick",)


@dataclass
class Held:
    tick: object


def a_tick():
    """Return a function that reads the rate, and one that assigns it."""
    rate = 1.0

    def tick(t):
        nonlocal rate
        rate = rate_at(t)

    return (lambda scale, y: -rate * scale * y), tick


def calls(kind):
    """Return a maker of a func that calls an object of this class first."""

    def make(scale):
        given = kind()

        def func(t, y):
            given(t)
            return -RATE * scale * y

        return func

    return make


def a_method_of_an_object(scale):
    schedule = Schedule()

    def func(t, y):
        schedule.tick(t)
        return -RATE * scale * y

    return func


def an_operator(scale):
    schedule = Schedule()

    def func(t, y):
        schedule[t]
        return -RATE * scale * y

    return func


def a_static_method(scale):
    def func(t, y):
        Schedule.of_the_class(t)
        return -RATE * scale * y

    return func


def a_property(scale):
    schedule = Schedule()

    def func(t, y):
        schedule.t = t
        schedule.ticked  # noqa: B018 (the property assigns)
        return -RATE * scale * y

    return func


def a_cached_property(scale):
    schedule = Schedule()

    def func(t, y):
        schedule.table(t)
        return -RATE * scale * y

    return func


def a_setter(scale):
    schedule = Schedule()

    def func(t, y):
        schedule.now = t
        return -RATE * scale * y

    return func


def an_object_made_in_func(scale):
    def func(t, y):
        Schedule()(t)
        return -RATE * scale * y

    return func


def a_function_held_by(hold, call):
    def make(scale):
        value, tick = a_tick()
        held = hold(tick)

        def func(t, y):
            call(held, t)
            return value(scale, y)

        return func

    return make


def slotted(tick):
    held = Slotted()
    held.tick = tick
    return held


def a_module_in_a_list(scale):
    modules = [nn.Identity(), nn.Sequential(Ticking())]

    def func(t, y):
        modules[1](t)
        return -RATE * scale * y

    return func


def a_hook(scale):
    net, (value, tick) = nn.Identity(), a_tick()
    net.register_forward_hook(lambda module, inputs, output: tick(inputs[0]))

    def func(t, y):
        net(t)
        return value(scale, y)

    return func


def a_decorated_function(scale):
    value, tick = a_tick()
    tick = torch.no_grad()(functools.wraps(tick)(lambda t: tick_itself(t)))
    tick_itself = tick.__wrapped__.__wrapped__

    def func(t, y):
        tick(t)
        return value(scale, y)

    return func


def a_cached_function(scale):
    value, tick = a_tick()
    cached = functools.lru_cache(maxsize=0)(lambda t: tick(t))

    def func(t, y):
        cached(t.item())
        return value(scale, y)

    return func


def a_function_that_names_globals(scale):
    def tick(t):
        globals()["RATE"] = rate_at(t)

    def func(t, y):
        tick(t)
        return -RATE * scale * y

    return func


def a_bound_method(scale):
    class Field:
        def __init__(self):
            self.schedule = Schedule()

        def slope(self, t, y):
            self.schedule.tick(t)
            return -RATE * scale * y

    return Field().slope


CALLED = [
    calls(Schedule),
    calls(Ticking),
    a_method_of_an_object,
    an_operator,
    a_static_method,
    a_property,
    a_cached_property,
    a_setter,
    an_object_made_in_func,
    a_function_held_by(lambda tick: {"tick": tick}, lambda held, t: held["tick"](t)),
    a_function_held_by(lambda tick: [tick], lambda held, t: held[0](t)),
    a_function_held_by(lambda tick: ({"inner": [tick]},), lambda held, t: held[0]["inner"][0](t)),
    a_function_held_by(Held, lambda held, t: held.tick(t)),
    a_function_held_by(slotted, lambda held, t: held.tick(t)),
    a_function_held_by(lambda tick: types.SimpleNamespace(tick=tick), lambda held, t: held.tick(t)),
    a_function_held_by(lambda tick: functools.partial(lambda f, t: f(t), tick), lambda held, t: held(t)),
    a_module_in_a_list,
    a_hook,
    a_decorated_function,
    a_cached_function,
    a_function_that_names_globals,
    a_bound_method,
]


@pytest.mark.parametrize("make", CALLED)
@pytest.mark.parametrize("gradient", ["backprop", "symplectic", "stages", "aca", "revolve", "baseline"])
def test_a_variable_that_code_called_by_func_assigns_is_the_callers(make, gradient):
    y0, scale = leaves()
    wanted = sa.odeint(lambda t, y: -rate_at(t) * scale * y, y0, T, **FIXED, gradient="backprop")
    globals()["RATE"] = 1.0
    ys = sa.odeint(make(scale), y0, T, **FIXED, gradient=gradient)
    torch.testing.assert_close(ys, wanted, rtol=1e-14, atol=1e-14)
    bars = torch.autograd.grad(wanted.sum(), [y0, scale])
    globals()["RATE"] = 1.0
    torch.testing.assert_close(torch.autograd.grad(ys.sum(), [y0, scale]), bars, rtol=1e-13, atol=1e-13)


def test_a_variable_assigned_in_a_call_by_code_that_is_not_found_is_an_error():
    rate = 1.0

    def ticks():
        nonlocal rate
        while True:
            t = yield
            rate = rate_at(t)

    tick = ticks()
    next(tick)

    def func(t, y):
        tick.send(t)
        return -rate * y

    with pytest.raises(ValueError, match=r"rate, which func reads, was assigned during a call of func"):
        sa.odeint(func, torch.ones(1), T, **FIXED)


def test_a_method_that_func_does_not_call_takes_no_variable_from_the_solve():
    class Trainer:
        def step(self):
            global RATE
            RATE = 3.0

        def slope(self, y):
            return -y

    trainer, y = Trainer(), torch.ones(1, dtype=torch.float64)
    copy = reach_of(lambda t, y: trainer.slope(y) * RATE).func
    trainer.step()
    assert copy(T[0], y) == -1.0
