"""A func whose value is what it was and whose derivative is another one is found by the graph of its first call."""

import contextvars
import weakref
from collections import UserDict, deque
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.gradients import GRADIENTS
from tests.fields import start
from tests.gradients import EXACT
from tests.symplectic_adjoint.field.parameter_gradients import leaf

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
RECOMPUTING = [x for x in EXACT if x not in ("backprop", "stages")]  # stages keeps graphs of the forward pass
recomputing_gradients = pytest.mark.parametrize("gradient", RECOMPUTING)


class Plain:
    pass


def in_a_deque():
    held = deque([False])
    return lambda: held[0], lambda on: held.__setitem__(0, on)


def in_a_set():
    held = set()
    return lambda: "on" in held, lambda on: held.add("on") if on else held.discard("on")


def by_the_length_of_a_list():
    held = []
    return lambda: len(held) % 2 > 0, lambda on: held.append(on)


def in_an_array():
    held = np.zeros(1)
    return lambda: held[0] > 0, lambda on: held.__setitem__(0, on)


def in_a_boolean_tensor():
    held = torch.zeros((), dtype=torch.bool)
    return lambda: bool(held), lambda on: held.fill_(on)


def in_an_integer_buffer():
    held = nn.Module()
    held.register_buffer("on", torch.zeros((), dtype=torch.long))
    return lambda: held.on.item() > 0, lambda on: held.on.fill_(int(on))


def in_an_object_of_a_library():
    held = UserDict(on=False)
    return lambda: held["on"], lambda on: held.__setitem__("on", on)


def in_a_context_variable():
    held = contextvars.ContextVar("held", default=False)
    return held.get, held.set


def behind_a_weak_reference():
    held = Plain()
    held.on = False
    reference = weakref.ref(held)
    return lambda: reference().on, lambda on, held=held: setattr(held, "on", on)


def in_a_method_of_a_class():
    class Kind:
        def on(self):
            return False

    held = Kind()
    return lambda: held.on(), lambda on: setattr(Kind, "on", lambda self: on)


PLACES = [
    in_a_deque,
    in_a_set,
    by_the_length_of_a_list,
    in_an_array,
    in_a_boolean_tensor,
    in_an_integer_buffer,
    in_an_object_of_a_library,
    in_a_context_variable,
    behind_a_weak_reference,
    in_a_method_of_a_class,
]


def detaching(net, is_on):
    return lambda t, y: net(y) + (y.detach() if is_on() else y)


@recomputing_gradients
@pytest.mark.parametrize("t", [T, T[[0, 3]]], ids=["steps", "one step"])
@pytest.mark.parametrize("place", PLACES)
def test_a_flag_that_detaches_a_part_may_not_change(place, t, gradient):
    (is_on, put), y0 = place(), start().requires_grad_()
    put(True)
    ys = sa.odeint(detaching(nn.Linear(3, 3).double(), is_on), y0, t, method="rk4", gradient=gradient)
    put(False)
    with pytest.raises(sa.FunctionChanged, match=r"at t = 0, has another graph than in the forward pass|has changed"):
        ys.sum().backward()
    assert y0.grad is None


@recomputing_gradients
def test_no_graph_is_compared_without_the_check(gradient):
    (is_on, put), y0 = in_a_set(), start().requires_grad_()
    unchecked = type(GRADIENTS[gradient])(check=False)
    ys = sa.odeint(detaching(nn.Linear(3, 3).double(), is_on), y0, T, method="rk4", gradient=unchecked)
    put(True)
    ys.sum().backward()


@recomputing_gradients
@pytest.mark.parametrize("net", [nn.Linear(3, 3).double(), nn.Sequential(nn.Linear(3, 3), nn.Dropout()).double()])
def test_another_frozen_part_is_no_other_function(net, gradient):
    y0 = start().requires_grad_()
    ys = sa.odeint(lambda t, y: net(y), y0, T, method="rk4", gradient=gradient)
    net.requires_grad_(False)
    ys.sum().backward()
    net.requires_grad_(True)
    assert y0.grad is not None


def keyed_by_time(weight):
    kept = {}

    def value(t):
        if t.item() not in kept:
            kept[t.item()] = t * weight[0].sin()
        return kept[t.item()]

    return value


def cached(weight):
    value = lru_cache(lambda t: t * weight[0].sin())
    return lambda t: value(t.item())


@recomputing_gradients
@pytest.mark.parametrize("make", [keyed_by_time, cached])
def test_a_value_kept_from_a_call_without_a_graph_is_found_though_its_parameter_is_used_otherwise(make, gradient):
    weight = leaf(3, 3)
    value = make(weight)
    ys = sa.odeint(lambda t, y: y @ weight + value(t), start(), T, method="rk4", gradient=gradient)
    with pytest.raises(sa.LostGradient, match=r"a value that it had computed in an earlier call"):
        ys.sum().backward()
    assert weight.grad is None
