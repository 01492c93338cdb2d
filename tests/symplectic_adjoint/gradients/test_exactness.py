"""The exact gradients equal ordinary autograd through the recorded grid, for every method."""

import pytest
import torch

from symplectic_adjoint import GRADIENTS, METHODS, solve
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error, replay

# Both sides do the same few hundred float64 operations in a different order: 1e-15 each, amplified a few hundred times.
ROUNDING = 1e-12

GRIDS = {
    "adaptive": {},
    "adaptive-land": {"outputs": "land"},
    "adaptive-interpolate": {"outputs": "interpolate"},
    "step-size": {"step_size": 0.15},
    "grid-points": {"grid_points": [0.0, 0.1, 0.3, 0.55, 0.8, 1.0]},
    "grid-is-t": {},
}


def possible(method, grid):
    """Return whether the method has such a grid: adaptive steps with an error estimate, steps on t without one."""
    return (
        METHODS[method].adaptive if grid.startswith("adaptive") else grid != "grid-is-t" or not METHODS[method].adaptive
    )


CASES = [(method, grid) for method in EXPLICIT_METHODS for grid in GRIDS if possible(method, grid)]


def options_for(grid, direction):
    options = dict(GRIDS[grid])
    if "grid_points" in options:
        options["grid_points"] = [direction * p for p in options["grid_points"]]
    return options


def differentiate(ys, y0, t, func):
    inputs = [y0, t, *func.parameters()]
    return torch.autograd.grad(weighted_loss(ys), inputs, allow_unused=True)


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize(("method", "grid"), CASES)
def test_an_exact_gradient_is_autograd_on_the_recorded_grid(method, gradient, grid, direction):
    options = options_for(grid, direction)
    func, y0 = SmallNet(), start().requires_grad_()
    t = (direction * torch.tensor([0.0, 0.25, 0.3, 0.31, 0.8, 1.0], dtype=torch.float64)).requires_grad_()
    # Loose enough for second order methods to take tens of steps, tight enough for all to reject some.
    solution = solve(func, y0, t, rtol=1e-4, atol=1e-4, method=method, options=options, gradient=gradient)
    ys = replay(func, METHODS[method], solution.grid, y0, t)
    assert relative_error(solution.ys, ys) < ROUNDING
    names = ["y0", "t", *(name for name, _ in func.named_parameters())]
    got = differentiate(solution.ys, y0, t, func)
    expected = differentiate(ys, y0, t, func)
    errors = {n: relative_error(g, e) for n, g, e in zip(names, got, expected, strict=True)}
    assert max(errors.values()) < ROUNDING, errors
    assert (got[-1] is None) == (expected[-1] is None)  # the unused parameter, as in plain autograd


@pytest.mark.parametrize("gradient", EXACT)
def test_two_output_times_in_one_step_and_none_in_another(gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 0.31, 0.32, 0.33, 2.0], dtype=torch.float64, requires_grad=True)
    solution = solve(func, y0, t, method="dop853", rtol=1e-6, atol=1e-8, gradient=gradient)
    inside = solution.grid.output_step[1:-1]
    assert len(set(inside.tolist())) < len(inside) < len(solution.grid.t) + len(inside)
    expected = differentiate(replay(func, METHODS["dop853"], solution.grid, y0, t), y0, t, func)
    for got, want in zip(differentiate(solution.ys, y0, t, func), expected, strict=True):
        assert relative_error(got, want) < ROUNDING


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", ["dopri5", "rk4", "dop853"])
def test_gradients_hold_at_a_large_time_offset(method, gradient):
    """At t0 = 1e8 times resolve 1.5e-8; steps are recorded, not rebuilt from differences of times."""
    offset = 1e8
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([offset, offset + 1.0], dtype=torch.float64)
    options = None if METHODS[method].adaptive else {"step_size": 0.125}
    solution = solve(func, y0, t, method=method, rtol=1e-5, atol=1e-5, options=options, gradient=gradient)
    ys = replay(func, METHODS[method], solution.grid, y0, t)
    inputs = [y0, *func.inner.parameters()]
    got = torch.autograd.grad(weighted_loss(solution.ys), inputs)
    expected = torch.autograd.grad(weighted_loss(ys), inputs)
    # A stage time off by one unit in the last place moves f by 1e-8: the bound is 2 ulp(1e8) times df/dt.
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < 1e-7
    again = torch.autograd.grad(
        weighted_loss(solve(func, y0, t, method=method, rtol=1e-5, atol=1e-5, options=options, gradient="backprop").ys),
        inputs,
    )
    # All strategies use the same stage times, so they agree to rounding error.
    assert max(relative_error(a, b) for a, b in zip(got, again, strict=True)) < ROUNDING


@pytest.mark.parametrize("gradient", EXACT)
def test_outputs_are_bitwise_equal_for_every_exact_gradient(gradient):
    func, t = SmallNet(), torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    plain = solve(func, start(), t, rtol=1e-6, atol=1e-8, gradient="symplectic").ys
    assert torch.equal(solve(func, start().requires_grad_(), t, rtol=1e-6, atol=1e-8, gradient=gradient).ys, plain)


@pytest.mark.parametrize("method", [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive])
def test_the_continuous_gradient_converges_as_the_tolerance_is_tightened(method):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 1.5, 3.0], dtype=torch.float64, requires_grad=True)
    exact = differentiate(solve(func, y0, t, method="dopri8", rtol=1e-12, atol=1e-12).ys, y0, t, func)
    errors = []
    for tolerance in (1e-2, 1e-6):
        ys = solve(func, y0, t, method=method, rtol=tolerance, atol=tolerance, gradient="continuous").ys
        got = differentiate(ys, y0, t, func)
        errors.append(max(relative_error(g, e) for g, e in zip(got, exact, strict=True)))
    # Ten thousand times tighter: second order methods gain least, a factor of tens.
    assert errors[1] < errors[0] / 10 and errors[1] < 1e-2


@pytest.mark.parametrize("gradient", STANDARD)
def test_gradients_agree_with_central_differences_on_a_fixed_grid(gradient):
    func, y0 = SmallNet(), start(batch=1).requires_grad_()
    t = torch.tensor([0.0, 0.35, 1.0], dtype=torch.float64, requires_grad=True)

    def ys(y0, t):
        return solve(func, y0, t, method="rk4", options={"step_size": 0.02}, gradient=gradient).ys

    # Fixed steps stay exactly differentiable in y0; in t only while no output crosses a grid point: not by 1e-6.
    # The continuous gradient is an approximation, here to the step's fourth order.
    atol = 1e-6 if GRADIENTS[gradient].exact else 1e-4
    if GRADIENTS[gradient].exact:
        assert torch.autograd.gradcheck(ys, (y0, t), atol=atol)
    else:
        assert torch.autograd.gradcheck(lambda y: ys(y, t.detach()), (y0,), atol=atol, rtol=1e-3)


@pytest.mark.parametrize("gradient", EXACT)
def test_second_derivatives_are_those_of_the_steps(gradient):
    func, y0 = SmallNet(), start(batch=1).requires_grad_()
    t = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64)

    def ys(y0):
        return solve(func, y0, t, method="rk4", options={"step_size": 0.1}, gradient=gradient).ys

    assert torch.autograd.gradgradcheck(ys, (y0,))


def test_second_derivatives_of_the_continuous_gradient_are_refused():
    y0 = start().requires_grad_()
    ys = solve(SmallNet(), y0, torch.tensor([0.0, 1.0]), gradient="continuous", rtol=1e-3, atol=1e-3).ys
    with pytest.raises(ValueError, match=r"create_graph=True .* needs an exact gradient"):
        torch.autograd.grad(ys.sum(), y0, create_graph=True)
