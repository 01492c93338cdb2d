"""Options that torchdiffeq ignores, or reads differently, are accepted with a warning; factors include their bounds."""

import math
import warnings

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from symplectic_adjoint.solve.options import FOREIGN_OPTIONS
from tests.fields import SmallNet, start
from tests.oracle import relative_error

T = torch.tensor([0.0, 2.0], dtype=torch.float64)
LOOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("name", FOREIGN_OPTIONS)
def test_an_option_of_a_method_that_only_torchdiffeq_has_changes_nothing_with_a_warning(name, method):
    expected = sa.odeint(SmallNet(), start(), T, method=method)
    with pytest.warns(sa.IgnoredArgumentWarning, match=f"option '{name}' has no effect with method='{method}'"):
        ys = sa.odeint(SmallNet(), start(), T, method=method, options={name: "whatever"})
    assert torch.equal(ys, expected)


@pytest.mark.parametrize("option", [{"interp": "cubic"}, {"perturb": True}])
def test_an_option_of_fixed_grids_changes_nothing_in_adaptive_steps_with_a_warning(option):
    t = torch.linspace(0.0, 2.0, 7)
    (name,) = option
    expected = sa.odeint(SmallNet(), start(), t, **LOOSE)
    with pytest.warns(sa.IgnoredArgumentWarning, match=f"option '{name}' has no effect .* belongs to fixed grids"):
        assert torch.equal(sa.odeint(SmallNet(), start(), t, options=option, **LOOSE), expected)


@pytest.mark.parametrize("grid", [{}, {"step_size": 0.25}])
@pytest.mark.parametrize(
    "option",
    [
        {"norm": torch.linalg.vector_norm},
        {"first_step": 0.1},
        {"min_step": 0.1},
        {"max_step": 0.1},
        {"safety": 0.5},
        {"ifactor": 2.0},
        {"dfactor": 0.5},
    ],
)
def test_an_option_of_step_control_changes_nothing_in_a_fixed_method_with_a_warning(option, grid):
    (name,) = option
    expected = sa.odeint(SmallNet(), start(), T, method="rk4", options=grid)
    with pytest.warns(sa.IgnoredArgumentWarning, match=f"option '{name}' has no effect with method='rk4'"):
        assert torch.equal(sa.odeint(SmallNet(), start(), T, method="rk4", options={**grid, **option}), expected)


@pytest.mark.parametrize("method", [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive])
@pytest.mark.parametrize(
    "option", [{"step_size": 0.25}, {"grid_constructor": lambda f, y, t: torch.linspace(0, 2, 9).double()}]
)
def test_fixed_steps_of_an_adaptive_method_are_taken_with_one_warning(option, method):
    (name,) = option
    with pytest.warns(
        sa.StepControlOffWarning,
        match=f"option '{name}' turns step control off: '{method}' takes fixed steps.*torchdiffeq ignores {name}"
        f" and stays adaptive: leave {name} out, or give a fixed method",
    ) as given:
        solutions = [sa.solve(SmallNet(), start(), T, method=method, options=option) for _ in range(2)]
    assert len(given) == 1
    assert all(torch.equal(solution.grid.h, torch.full((8,), 0.25, dtype=torch.float64)) for solution in solutions)


@pytest.mark.parametrize(
    "keywords",
    [
        {"method": "rk4", "options": {"step_size": 0.25}},
        {"method": "dopri5", "options": {"grid_points": torch.linspace(0.0, 2.0, 9)}},
        {"method": "dopri5", "options": {"grid_constructor": None}},
        {"gradient": "mali", "options": {"step_size": 0.25}},
    ],
)
def test_nothing_is_said_where_torchdiffeq_does_the_same_or_has_no_such_name(keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sa.odeint(SmallNet(), start(), T, **keywords)


def test_the_second_solve_of_the_continuous_gradient_warns_of_its_own_fixed_steps():
    y0 = start().requires_grad_()
    with pytest.warns(sa.StepControlOffWarning, match="'step_size' turns step control off: 'bosh3'"):
        sa.odeint(SmallNet(), y0, T, gradient=sa.Continuous(method="bosh3", options={"step_size": 0.1}), **LOOSE)


def decaying_fast(t, y):
    return -50.0 * y * (1.0 + torch.sin(9.0 * t))


@pytest.mark.parametrize("controller", ["I", "PI"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ifactor", 1.0),
        ("ifactor", torch.tensor(1.0)),
        ("ifactor", math.inf),
        ("dfactor", 1.0),
        ("dfactor", 0.0),
        ("safety", 1.0),
    ],
)
def test_the_bounds_of_a_factor_are_valid_and_meet_the_tolerance(name, value, controller):
    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    # The first step is far too long (dfactor shrinks it), then the solution comes to rest (ifactor bounds the growth).
    options = {name: value, "controller": controller, "first_step": 0.2}
    t = torch.tensor([0.0, 0.02, 0.3], dtype=torch.float64)
    solution = sa.solve(decaying_fast, y0, t, options=options, **LOOSE)
    exact = torch.exp(-50.0 * (t - (torch.cos(9.0 * t) - 1.0) / 9.0))
    # The tolerance is per step; the errors of some ten steps add up.
    assert solution.stats.rejected > 0 and (solution.ys[:, 0] - exact).abs().max() < 2e-3
    ratios = solution.grid.h[1:-1] / solution.grid.h[:-2]
    assert name != "ifactor" or value == math.inf or ratios.max() <= 1.0 + 1e-12
    (found,) = torch.autograd.grad(solution.ys[1:].sum(), y0)
    plain = sa.solve(decaying_fast, y0, t, options=options, gradient="backprop", **LOOSE)
    (expected,) = torch.autograd.grad(plain.ys[1:].sum(), y0)
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("option", [{"ifactor": math.inf}, {"dfactor": 0.0}])
def test_an_unbounded_factor_does_not_make_a_step_that_says_nothing_infinite_or_zero(option):
    at_rest = sa.solve(lambda t, y: 0.0 * y, start(), T, options={"first_step": 1e-3, **option})
    assert at_rest.stats.accepted < 10

    def overflows(t, y):
        return torch.where(y.abs() < 2.0, -50.0 * y, torch.full_like(y, math.inf))

    ys = sa.odeint(overflows, torch.ones(3, dtype=torch.float64), T, options={"first_step": 1.0, **option}, **LOOSE)
    assert ys[-1].abs().max() < 1e-3
