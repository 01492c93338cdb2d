"""The time of an event, and gradients through it."""

import math

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS, IMPLICIT_METHODS
from tests.fields import Counted, SmallNet, start
from tests.gradients import EXACT, STANDARD, taking_turns
from tests.oracle import relative_error, replay

ROUNDING = 1e-12  # as in test_exactness
SPAN = torch.tensor([0.0, 1.0], dtype=torch.float64)


def vector(*values, **keywords):
    return torch.tensor(values, dtype=torch.float64, **keywords)


def level(height):
    """Return an event function of time and state with a parameter."""
    return lambda t, y: 0.3 * y.sum() + t - height


IMPLICIT_CASES = [(method, direction) for method in IMPLICIT_METHODS for direction in (1.0, -1.0)]


def options_for(method, **more):
    return more if sa.METHODS[method].adaptive else {"step_size": 0.11, **more}


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_gradients_through_an_event_are_those_of_the_steps_and_the_implicit_function(method, gradient, direction):
    # The root is found to 1e-15 of a step, and rates are of order 1.
    assert_exact_through_an_event(SmallNet(), method, gradient, direction, bound=100 * ROUNDING)


@pytest.mark.parametrize(("gradient", "method", "direction"), taking_turns(IMPLICIT_CASES, EXACT))
def test_gradients_through_an_event_with_an_implicit_method(method, gradient, direction):
    net = SmallNet()
    func = (net, lambda t, y: -5.0 * direction * (y - 0.2)) if sa.METHODS[method].additive else net
    # As above, with stages solved to a few eps of the state.
    assert_exact_through_an_event(func, method, gradient, direction, bound=1e-10, params=tuple(net.parameters()))


def assert_exact_through_an_event(func, method, gradient, direction, *, bound, **keywords):
    net, y0 = func[0] if isinstance(func, tuple) else func, start(batch=2).requires_grad_()
    height = (0.3 * y0.sum() + 0.2 + 0.4 * direction).detach().requires_grad_()
    t = direction * SPAN + 0.2
    t.requires_grad_()
    event_fn = level(height)
    solution = sa.solve(
        func, y0, t, method=method, rtol=1e-4, atol=1e-4, options=options_for(method), event_fn=event_fn,
        gradient=gradient, **keywords,
    )  # fmt: skip
    assert event_fn(solution.event_t, solution.ys[-1]).abs() < 1e-12

    tau = solution.event_t.detach().requires_grad_()
    y = replay(func, sa.METHODS[method], solution.grid, y0, torch.stack([t[0], tau]))[-1]
    value = event_fn(tau, y)
    (rate,) = torch.autograd.grad(value, tau, retain_graph=True)
    slope = torch.stack([torch.autograd.grad(x, tau, retain_graph=True)[0] for x in y.flatten()]).reshape(y.shape)
    moved = -(value / rate)  # one Newton step on the graph, with the rate as a number: the implicit function theorem
    # The time of the output is not an input any more: it acts through `moved` alone.
    expected_t, expected_y = tau.detach() + moved, y + slope * moved

    inputs = [y0, t, height, *net.inner.parameters(), net.twice]
    for got, expected in ((solution.event_t, expected_t), ((solution.ys[-1] ** 2).sum(), (expected_y**2).sum())):
        ours = torch.autograd.grad(got, inputs, retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad(expected, inputs, retain_graph=True, allow_unused=True)
        assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) < bound


@pytest.mark.parametrize("gradient", EXACT)
def test_an_event_on_a_fixed_grid_agrees_with_central_differences(gradient):
    net, y0 = SmallNet(), start(batch=1).requires_grad_()
    height = (0.3 * y0.sum() + 0.2 + 0.4).detach().requires_grad_()

    def event(y0, height, t0):
        t = torch.cat([t0.reshape(1), t0.detach().reshape(1) + 1])
        options = {"step_size": 0.11}
        return sa.odeint(net, y0, t, method="rk4", options=options, event_fn=level(height), gradient=gradient)

    t0 = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(event, (y0, height, t0), atol=1e-6)


@pytest.mark.parametrize("gradient", STANDARD)
def test_the_first_of_several_events_ends_the_solve_whatever_their_signs(gradient):
    def event_fn(t, y):
        return torch.stack([y[0] - 5.0, 2.0 - y[0], t - 100.0])

    y0 = vector(1.0, requires_grad=True)
    event_t, ys = sa.odeint(lambda t, y: y, y0, SPAN, event_fn=event_fn, gradient=gradient, rtol=1e-9, atol=1e-9)
    assert event_t.item() == pytest.approx(math.log(2.0), rel=1e-8)
    (of_y0,) = torch.autograd.grad(event_t, y0, retain_graph=True)
    assert of_y0.item() == pytest.approx(-1.0, rel=1e-6)  # t = log(2 / y0)
    assert abs(torch.autograd.grad(ys[-1].sum(), y0)[0].item()) < 1e-6  # y is 2 there, whatever y0 is


def test_a_component_that_is_zero_at_the_start_takes_its_first_nonzero_sign():
    """A ball thrown from the floor: the event is its return."""
    velocity = vector(3.0, requires_grad=True)[0]
    event_t, _ = sa.odeint_event(
        lambda t, y: (y[1], torch.full_like(y[1], -9.8)), (vector(0.0)[0], velocity), 0.0,
        event_fn=lambda t, y: y[0], options={"first_step": 0.01, "max_step": 0.05},
    )  # fmt: skip
    assert event_t.item() == pytest.approx(2 * 3.0 / 9.8, rel=1e-12)  # a parabola is solved to rounding


@pytest.mark.parametrize("method", ["dopri8", "dopri5"])
def test_a_landing_method_ends_a_step_on_the_event(method):
    options = {"outputs": "land"}
    solution = sa.solve(
        lambda t, y: y, vector(1.0), SPAN, method=method, options=options, rtol=1e-9, atol=1e-9,
        event_fn=lambda t, y: y[0] - 2.0,
    )  # fmt: skip
    assert (solution.grid.t[-1] + solution.grid.h[-1]).item() == solution.event_t.item()
    assert solution.event_t.item() == pytest.approx(math.log(2.0), rel=1e-8)


def test_the_search_for_an_event_takes_no_extra_f_calls():
    plain, watched = Counted(SmallNet()), Counted(SmallNet())
    with torch.no_grad():
        event_t, _ = sa.odeint(watched, start(), SPAN, event_fn=lambda t, y: t - 0.7, rtol=1e-5, atol=1e-5)
        solution = sa.solve(plain, start(), torch.tensor([0.0, 50.0]), rtol=1e-5, atol=1e-5)
    assert event_t.item() == pytest.approx(0.7, abs=1e-12)
    steps = int((solution.grid.t < 0.7).sum())
    rejected_at_most = solution.stats.rejected
    assert watched.calls <= 6 * (steps + rejected_at_most) + 2


def test_a_solve_that_finds_no_event_is_given_up():
    with pytest.raises(sa.EventNotFound, match="did not change sign up to t = ") as caught:
        sa.odeint(lambda t, y: -y, vector(1.0), SPAN, event_fn=lambda t, y: y[0] + 1.0, options={"max_num_steps": 50})
    assert caught.value.t > 0.0 and caught.value.accepted + caught.value.rejected == 50
    with pytest.raises(sa.EventNotFound):
        options = {"step_size": 0.1, "max_num_steps": 50}
        sa.odeint(lambda t, y: -y, vector(1.0), SPAN, method="rk4", event_fn=lambda t, y: y[0] + 1.0, options=options)


def test_an_event_that_only_touches_zero_has_no_gradient():
    """The event function is flat where it changes sign; steps of 0.5 are exact, so the state is exactly zero there."""
    y0 = vector(-1.0, requires_grad=True)
    event_t, ys = sa.odeint(
        lambda t, y: torch.ones_like(y), y0, vector(0.0, 1.0), method="euler", options={"step_size": 0.5},
        event_fn=lambda t, y: y[0] ** 3,
    )  # fmt: skip
    assert event_t.item() == pytest.approx(1.0, abs=1e-5)  # the cube is below 1e-15 there
    assert torch.autograd.grad(ys[0].sum(), y0, retain_graph=True)[0].item() == 1.0
    for output in (event_t, ys[-1].sum()):
        with pytest.raises(sa.SolverError, match="touches zero at t = 1 and does not cross it"):
            torch.autograd.grad(output, y0, retain_graph=True)


def test_a_second_derivative_through_an_event_is_refused():
    y0 = vector(1.0, requires_grad=True)
    event_t, _ = sa.odeint(lambda t, y: y, y0, SPAN, event_fn=lambda t, y: y[0] - 2.0)
    with pytest.raises(ValueError, match=r"double backward\) does not go through the time of an event"):
        torch.autograd.grad(event_t, y0, create_graph=True)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "rk4"}, "event_fn with fixed steps needs their size: give step_size"),
        ({"t": vector(0.0, 0.5, 1.0)}, "with event_fn t must have two entries"),
        ({"event_fn": lambda t, y: y[:0]}, r"event_fn must return real numbers .*, got shape \(0,\)"),
        (
            {"event_fn": lambda t, y: y[0] < 2.0},
            "real numbers that change sign, .* torch.bool: return y - height",
        ),
        ({"event_fn": lambda t, y: y[0] * torch.nan}, "event_fn returned nan at t = 0"),
    ],
)
def test_an_unsupported_event_is_refused_with_the_reason(keywords, message):
    arguments = {"t": SPAN, "event_fn": lambda t, y: y[0] - 2.0, **keywords}
    with pytest.raises(ValueError, match=message):
        sa.odeint(lambda t, y: y, vector(1.0), arguments.pop("t"), **arguments)


def test_the_odeint_of_another_library_is_refused():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    with pytest.raises(ValueError, match="odeint_interface must be symplectic_adjoint's odeint or odeint_adjoint"):
        sa.odeint_event(
            lambda t, y: y, vector(1.0), 0.0, event_fn=lambda t, y: y[0] - 2.0, odeint_interface=torchdiffeq.odeint
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "dop853", "rk4", "dopri8"])
def test_a_solve_that_continues_from_an_event_finds_the_next_one(method, dtype):
    """The ball starts at zero up to rounding, on either side, and must not fall through the floor."""

    def fall(t, y):
        return torch.stack([y[1], -9.81 + 0.0 * y[0]])

    y, t, bounces = torch.tensor([1.0, 0.0], dtype=dtype), 0.0, []
    options = {} if sa.METHODS[method].adaptive else {"step_size": 0.05}
    for _ in range(4):
        t, ys = sa.odeint_event(
            fall, y, t, event_fn=lambda t, y: y[0], method=method, options=options, rtol=1e-5, atol=1e-6
        )
        y = torch.stack([ys[-1][0], -0.9 * ys[-1][1]])
        bounces.append(t.item())
    flights = [math.sqrt(2 / 9.81) * factor for factor in (1.0, 1.8, 1.62, 1.458)]
    # A parabola is solved to rounding error, which every bounce passes on.
    expected = [sum(flights[: i + 1]) for i in range(4)]
    assert bounces == pytest.approx(expected, abs=1e-12 if dtype == torch.float64 else 1e-5)
