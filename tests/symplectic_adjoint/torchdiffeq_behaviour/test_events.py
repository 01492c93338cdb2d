"""odeint_event: where event_fn changes sign, with gradients through the time of the event."""

import math
from itertools import product

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from tests.gradients import EXACT, FORWARD, STANDARD, and_continuous, taking_turns
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import (
    ADAPTIVE,
    EVENT,
    EVENT_BOUND,
    Falling,
    G,
    error_bound,
    height,
    stepping,
    times,
)


def rolls(t, y):
    """Return dy/dt of a rotation: y = (cos t, sin t) from (1, 0)."""
    return torch.stack([-y[1], y[0]])


@pytest.mark.parametrize(("gradient", "kind", "direction"), and_continuous(product(["tensor", "tuple"], [1.0, -1.0])))
def test_time_and_state_of_a_fall_and_their_gradients(odeint, gradient, kind, direction):
    ball = Falling()
    h, t0 = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, 0.5))
    y0 = (h, torch.zeros_like(h)) if kind == "tuple" else torch.stack([h, torch.zeros_like(h)])
    event_t, ys = sa.odeint_event(
        ball, y0, t0, event_fn=height, reverse_time=direction < 0, odeint_interface=odeint, **EVENT
    )
    fall = math.sqrt(2 * 3.0 / G)
    assert event_t.item() == pytest.approx(0.5 + direction * fall, abs=EVENT_BOUND)
    assert len(ys[0]) == 2 if kind == "tuple" else ys.shape == (2, 2)
    end = [part[-1] for part in ys] if kind == "tuple" else ys[-1]
    assert abs(end[0].item()) < EVENT_BOUND
    assert end[1].item() == pytest.approx(-direction * math.sqrt(2 * G * 3.0), abs=EVENT_BOUND)
    of_time = torch.autograd.grad(event_t, [h, t0, ball.g], retain_graph=True)
    # t = t0 + sqrt(2 h / g): dt/dh = 1 / sqrt(2 g h), dt/dt0 = 1, dt/dg = -sqrt(h / (2 g^3))
    expected = [direction / math.sqrt(2 * G * 3.0), 1.0, -direction * math.sqrt(3.0 / (2 * G**3))]
    assert [float(x) for x in of_time] == pytest.approx(expected, abs=EVENT_BOUND)
    # v = -sqrt(2 g h): dv/dh = -sqrt(g / (2 h)), dv/dg = -sqrt(h / (2 g)); it does not depend on t0
    of_velocity = torch.autograd.grad(end[1], [h, t0, ball.g], allow_unused=True, materialize_grads=True)
    expected = [-direction * math.sqrt(G / (2 * 3.0)), 0.0, -direction * math.sqrt(3.0 / (2 * G))]
    assert [float(x) for x in of_velocity] == pytest.approx(expected, abs=EVENT_BOUND)


@pytest.mark.parametrize("gradient", STANDARD)
def test_parameters_of_the_event_function_get_their_gradient(odeint, gradient):
    class Floor(nn.Module):
        def __init__(self):
            super().__init__()
            self.at = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, t, y):
            return y[0] - self.at

    floor, closure = Floor(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([3.0, 0.0], dtype=torch.float64)
    for event_fn, level in ((floor, floor.at), (lambda t, y: y[0] - closure, closure)):
        event_t, ys = sa.odeint_event(Falling(), y0, times(0.0)[0], event_fn=event_fn, odeint_interface=odeint, **EVENT)
        of_time, of_height = (torch.autograd.grad(x, level, retain_graph=True)[0] for x in (event_t, ys[-1, 0]))
        assert of_time.item() == pytest.approx(-1 / math.sqrt(2 * G * 2.0), abs=EVENT_BOUND)
        assert of_height.item() == pytest.approx(1.0, abs=EVENT_BOUND)  # it ends on the floor, wherever that is


@pytest.mark.parametrize(("gradient", "method"), and_continuous([*ADAPTIVE, "midpoint", "rk38", "dop853"]))
def test_every_method_finds_the_event(odeint, gradient, method):
    keywords = stepping(method, torch.float64)
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    event_t, ys = sa.odeint_event(
        rolls, y0, times(0.0)[0], event_fn=lambda t, y: y[0], odeint_interface=odeint, **keywords
    )
    bound = error_bound(method, torch.float64)
    assert event_t.item() == pytest.approx(math.pi / 2, abs=bound)
    assert torch.allclose(ys[-1], torch.tensor([0.0, 1.0], dtype=torch.float64), atol=bound)
    # A start turned by a reaches the event earlier by a; one farther out ends farther out, on the other axis.
    of_time = torch.autograd.grad(event_t, y0, retain_graph=True)[0]
    of_end = torch.autograd.grad(ys[-1, 1], y0)[0]
    assert torch.allclose(of_time, torch.tensor([0.0, -1.0], dtype=torch.float64), atol=4 * bound)
    assert torch.allclose(of_end, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=4 * bound)


@pytest.mark.parametrize("gradient", [*FORWARD, "continuous"])
def test_of_several_event_functions_the_first_to_change_sign_counts(odeint, gradient):
    def event_fn(t, y):
        return torch.stack([y[0] - 1.0, y[1] + 2.0, t - 5.0])  # the velocity reaches -2 first, at t = 2 / g

    y0 = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
    event_t, _ = sa.odeint_event(Falling(), y0, times(0.0)[0], event_fn=event_fn, odeint_interface=odeint, **EVENT)
    assert event_t.item() == pytest.approx(2 / G, abs=EVENT_BOUND)
    # A ball that starts faster by dv is there earlier by dv / g, whatever its height.
    assert torch.allclose(torch.autograd.grad(event_t, y0)[0], torch.tensor([0.0, 1 / G]).double(), atol=EVENT_BOUND)


# Of these methods rk38 interpolates and dopri8 lands on the event.
@pytest.mark.parametrize(("gradient", "method"), taking_turns(["rk38", "dopri8"], EXACT))
def test_on_a_fixed_grid_the_gradient_is_that_of_the_steps_even_of_long_ones(gradient, method):
    def event(y0, t0):
        return sa.odeint_event(
            lambda t, y: torch.cos(t) * rolls(t, y), y0, t0, event_fn=lambda t, y: y[0] - 0.2 * t - 0.4,
            method=method, options={"step_size": 0.4}, gradient=gradient,
        )  # fmt: skip

    y0 = torch.tensor([1.0, 0.1], dtype=torch.float64, requires_grad=True)
    t0 = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
    # Good to 1e-8: the event is located to a few units in the last place, divided by differences of 1e-6.
    assert torch.autograd.gradcheck(event, (y0, t0), atol=1e-6, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize("gradient", FORWARD)
@pytest.mark.parametrize("reverse_time", [False, True])
def test_values_agree_with_torchdiffeqs(odeint, gradient, reverse_time):
    def event_fn(t, y):
        return y.sum() - 0.5 * torch.cos(t) - 0.4

    arguments = (rolls, torch.tensor([1.0, 0.2], dtype=torch.float64), times(0.1)[0])
    keywords = {"event_fn": event_fn, "reverse_time": reverse_time, **EVENT}
    ours = sa.odeint_event(*arguments, odeint_interface=odeint, **keywords)
    other = torchdiffeq.odeint_event(*arguments, **keywords)
    assert torch.allclose(ours[0], other[0], atol=EVENT_BOUND)
    assert torch.allclose(ours[1], other[1], atol=EVENT_BOUND)


@pytest.mark.parametrize("gradient", FORWARD)
def test_odeint_with_event_fn_takes_start_and_direction_from_two_times(odeint, gradient):
    y0 = torch.tensor([3.0, 0.0], dtype=torch.float64)
    for t in (times(0.0, 1.0), times(0.0, 1e-3)):  # of the second one only the direction counts
        event_t, ys = odeint(Falling(), y0, t, event_fn=height, **EVENT)
        assert event_t.item() == pytest.approx(math.sqrt(2 * 3.0 / G), abs=EVENT_BOUND)
        assert ys.shape == (2, 2) and torch.equal(ys[0], y0)
    with pytest.raises(ValueError, match="event"):
        odeint(Falling(), y0, times(0.0, 1.0, 2.0), event_fn=height, **EVENT)


@pytest.mark.parametrize("gradient", [*FORWARD, "continuous"])
def test_a_second_derivative_through_an_event_is_refused(odeint, gradient):
    h = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    event_t, _ = sa.odeint_event(
        Falling(), torch.stack([h, 0 * h]), times(0.0)[0], event_fn=height, odeint_interface=odeint, **EVENT
    )
    with pytest.raises(sa.UnsupportedCombination, match="create_graph"):
        torch.autograd.grad(event_t, h, create_graph=True)
