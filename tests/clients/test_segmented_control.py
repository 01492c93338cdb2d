"""A control, a sign, an index or a network chosen for each segment; all segments share one backward pass."""

from functools import partial

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
ONE_STEP = T[:2]
CONTROLS = (0.3, -1.0, 2.0)

gain = 1.0


def net():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def driven(layer, y, u):
    return torch.tanh(layer(torch.cat([y, torch.tensor([u])])))


def by_a_rebound_closure(odeint, layer, y, t):
    for u in CONTROLS:

        def f(t, y):
            return driven(layer, y, u)  # noqa: B023 (the closure that this test is about)

        y = odeint(f, y, t)[-1]
    return y


def by_a_lambda(odeint, layer, y, t):
    for u in CONTROLS:
        f = lambda t, y: driven(layer, y, u)  # noqa: E731, B023
        y = odeint(f, y, t)[-1]
    return y


def by_one_function_and_a_cell(odeint, layer, y, t):
    u = 0.0

    def f(t, y):
        return driven(layer, y, u)

    for u in CONTROLS:  # noqa: B007
        y = odeint(f, y, t)[-1]
    return y


def by_a_global(odeint, layer, y, t):
    global gain
    for gain in CONTROLS:
        y = odeint(lambda t, y: driven(layer, y, gain), y, t)[-1]  # noqa: B023
    return y


def by_a_partial(odeint, layer, y, t):
    def f(t, y, u):
        return driven(layer, y, u)

    for u in CONTROLS:
        y = odeint(partial(f, u=u), y, t)[-1]
    return y


def by_a_helper(odeint, layer, y, t):
    u = 0.0

    def control():
        return u

    for u in CONTROLS:  # noqa: B007
        y = odeint(lambda t, y: driven(layer, y, control()), y, t)[-1]
    return y


class Segment(nn.Module):
    """A field whose control is an attribute that is no tensor."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.u = layer, 0.0

    def forward(self, t, y):
        return driven(self.layer, y, self.u)


def by_an_attribute_of_a_module(odeint, layer, y, t):
    field = Segment(layer)
    for field.u in CONTROLS:
        y = odeint(field, y, t)[-1]
    return y


def by_a_network_for_each_segment(odeint, layer, y, t):
    layers = [layer, nn.Linear(3, 2), layer]
    for chosen in layers:
        y = odeint(lambda t, y: driven(chosen, y, 0.5), y, t)[-1]  # noqa: B023
    return y


def solved(choose, t):
    def train(odeint):
        layer = net()
        y0 = torch.ones(2, requires_grad=True)
        choose(odeint, layer, y0, t).sum().backward()
        return gradients_of(layer, y0=y0)

    return train


RIGHT = (
    by_a_rebound_closure,
    by_a_lambda,
    by_one_function_and_a_cell,
    by_a_global,
    by_a_partial,
    by_a_helper,
    by_an_attribute_of_a_module,
    by_a_network_for_each_segment,
)


@pytest.mark.parametrize("choose", RIGHT)
def test_each_segment_keeps_its_own_control(choose, solvers):
    for t in (T, ONE_STEP):
        solvers.check(solved(choose, t))


class Plant:
    """A plain object, which the library never writes to."""

    def __init__(self, layer):
        self.layer, self.u = layer, 0.0

    def __call__(self, t, y):
        return driven(self.layer, y, self.u)


def by_an_attribute_of_a_plain_object(odeint, layer, y, t):
    plant = Plant(layer)
    for plant.u in CONTROLS:
        y = odeint(plant, y, t)[-1]
    return y


def by_the_contents_of_a_list(odeint, layer, y, t):
    schedule = [0.0]
    for schedule[0] in CONTROLS:
        y = odeint(lambda t, y: driven(layer, y, schedule[0]), y, t)[-1]
    return y


def by_the_contents_of_a_dict(odeint, layer, y, t):
    state = {}
    for u in CONTROLS:
        state["u"] = u
        y = odeint(lambda t, y: driven(layer, y, state["u"]), y, t)[-1]
    return y


@pytest.mark.parametrize(
    "choose", [by_an_attribute_of_a_plain_object, by_the_contents_of_a_list, by_the_contents_of_a_dict]
)
def test_what_cannot_be_kept_is_an_error_and_no_wrong_gradient(choose, solvers):
    for t in (T, ONE_STEP):
        train = solved(choose, t)
        if solvers.ours.keywords["gradient"] == "backprop":
            solvers.check(train)
        else:
            with pytest.raises(sa.FunctionChanged):
                train(solvers.ours)
