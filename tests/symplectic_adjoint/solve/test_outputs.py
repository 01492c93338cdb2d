"""Outputs are as accurate as the steps, wherever they lie."""

import math

import pytest
import torch

from symplectic_adjoint import METHODS, odeint, solve
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import SmallNet, start


def spin(t, y):
    """Return dy/dt of a spiral with a known solution: y = r(t) (cos t, sin t), r = exp(sin t)."""
    a, b = y
    return torch.stack([torch.cos(t) * a - b, torch.cos(t) * b + a])


def spun(times):
    r = torch.exp(torch.sin(times))
    return torch.stack([r * torch.cos(times), r * torch.sin(times)], dim=1)


Y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("method", [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive])
def test_outputs_of_an_adaptive_solve_are_as_accurate_as_its_end(method, direction):
    times = direction * torch.linspace(0.0, 3.0, 61, dtype=torch.float64)
    errors = (odeint(spin, Y0, times, method=method, rtol=1e-6, atol=1e-6) - spun(times)).abs().amax(1)
    # Errors add up along the solve, so the end is among the worst; dense output may lose one order inside a step.
    assert errors.max() < 1e-3 if METHODS[method].order < 3 else errors.max() < 5e-5
    assert errors[1:-1].max() < 20 * errors[-10:].max()


@pytest.mark.parametrize("interp", ["own", "linear", "cubic"])
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_outputs_between_grid_points_converge_with_the_interpolants_order(method, interp):
    tableau = METHODS[method]
    errors = []
    for steps in (10, 20):
        options = {"step_size": 1.0 / steps} | ({} if interp == "own" else {"interp": interp})
        inside = (torch.arange(steps, dtype=torch.float64) + 0.3) / steps  # the same place in every step
        times = torch.cat([torch.zeros(1), inside, torch.ones(1)])
        ys = odeint(spin, Y0, times, method=method, options=options)
        errors.append((ys - spun(times))[1:-1].abs().max().item())
    interpolant = {"linear": 1, "cubic": min(3, tableau.order)}.get(interp, tableau.interpolant.order)
    order = min(tableau.order, interpolant + 1)
    # One halving gives the order to about 0.5; below 1e-13 errors are rounding.
    assert math.log2(errors[0] / errors[1]) > order - 0.6 or errors[1] < 1e-13


@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_steps_converge_with_the_methods_order(method):
    t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    sizes = (0.5, 0.25) if METHODS[method].order > 5 else (0.1, 0.05)
    errors = [
        (odeint(spin, Y0, t, method=method, options={"step_size": h})[-1] - spun(t)[-1]).abs().max().item()
        for h in sizes
    ]
    # One halving; the next order's term moves the measured slope by less than one.
    assert METHODS[method].order - 0.5 < math.log2(errors[0] / errors[1]) < METHODS[method].order + 1.5


def test_dopri8_lands_on_outputs_and_dop853_steps_over_them():
    t = torch.linspace(0.0, 2.0, 21, dtype=torch.float64)
    landed = solve(SmallNet(), start(), t, method="dopri8", rtol=1e-6, atol=1e-8).grid
    assert landed.output_sigma[1:].tolist() == [1.0] * 20
    assert [landed.pinned_to[n].item() for n in landed.output_step[1:]] == list(range(1, 21))
    over = solve(SmallNet(), start(), t, method="dop853", rtol=1e-6, atol=1e-8).grid
    assert len(over.t) < 10


def test_the_outputs_option_overrides_either_default():
    t = torch.linspace(0.0, 2.0, 21, dtype=torch.float64)
    dopri5 = solve(SmallNet(), start(), t, rtol=1e-4, atol=1e-4, options={"outputs": "land"}).grid
    assert len(dopri5.t) >= 20
    dopri8 = solve(
        SmallNet(), start(), t, method="dopri8", rtol=1e-4, atol=1e-4, options={"outputs": "interpolate"}
    ).grid
    assert len(dopri8.t) < 20


def test_landing_does_not_shorten_the_steps_after_it():
    """Two outputs close together cost one short step, not a regrowth from it."""
    pair = torch.tensor([0.0, 1.0, 1.0 + 1e-7, 4.0], dtype=torch.float64)
    plain = solve(SmallNet(), start(), pair[[0, 3]], rtol=1e-6, atol=1e-6).stats.accepted
    landed = solve(SmallNet(), start(), pair, rtol=1e-6, atol=1e-6, options={"outputs": "land"}).stats.accepted
    assert landed <= plain + 3


@pytest.mark.parametrize("options", [{}, {"step_size": 0.3}, {"outputs": "land"}, {"grid_points": [0.0, 0.2, 1.0]}])
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_the_last_step_ends_exactly_at_the_last_time(method, options):
    if "outputs" in options and not METHODS[method].adaptive:
        options = {**options, "step_size": 0.3}
    t = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
    grid = solve(SmallNet(), start(), t, method=method, rtol=1e-3, atol=1e-3, options=options).grid
    assert grid.t[0] == 0.0
    assert grid.pinned_to[-1] == 2
    assert grid.output_sigma[-1] == 1.0 and grid.output_step[-1] == len(grid.t) - 1
    assert grid.t[-1] + grid.h[-1] == pytest.approx(1.0, rel=1e-15)


def test_rounding_in_the_step_size_adds_no_step():
    for count in (3, 7, 10, 49, 50, 1000):
        t = torch.tensor([0.1, 1.0], dtype=torch.float64)
        stats = solve(spin, Y0, t, method="euler", options={"step_size": 0.9 / count}).stats
        assert stats.accepted == count


def test_a_single_time_returns_the_initial_state():
    y0 = start().requires_grad_()
    ys = odeint(SmallNet(), y0, torch.tensor([0.3], dtype=torch.float64))
    assert torch.equal(ys, y0[None])
    ys.sum().backward()
    assert torch.equal(y0.grad, torch.ones_like(y0))


def test_times_in_float32_get_their_gradient_in_float32():
    t = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    odeint(SmallNet(), start(), t, rtol=1e-6, atol=1e-8).sum().backward()
    assert t.grad is not None and t.grad.dtype == torch.float32 and t.grad.abs().min() > 0


def test_float32_states_stay_float32_and_func_sees_time_in_that_dtype():
    seen = set()

    def func(t, y):
        seen.add((t.dtype, t.ndim))
        return -y

    ys = odeint(func, Y0.float(), torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-4, atol=1e-6)
    assert ys.dtype == torch.float32 and seen == {(torch.float32, 0)}


def test_a_grid_constructor_gives_the_grid():
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    grid = solve(
        spin, Y0, t, method="rk4", options={"grid_constructor": lambda f, y, t: torch.linspace(0, 1, 5).double()}
    ).grid
    assert grid.t.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert grid.pinned_to.tolist() == [-1, 1, -1, 2]
