"""A tolerance that the dtype of y0 cannot resolve: the solve goes on as accurately as it can, says so, and ends."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.gradients import STANDARD

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def oscillation(t, y):
    return torch.stack((y[1], -y[0]))


@pytest.mark.parametrize(
    ("name", "dtype", "value", "least"),
    [
        ("rtol", torch.float32, 1e-9, "1.19e-09"),
        ("rtol", torch.bfloat16, 1e-7, "7.81e-05"),
        ("rtol", torch.float16, 1e-7, "9.77e-06"),
        ("rtol", torch.complex64, 1e-9, "1.19e-09"),
        ("rtol", torch.float64, 0.0, "2.22e-18"),
        ("atol", torch.float16, 1e-9, "6.1e-05"),
        ("atol", torch.float32, 0, "1.18e-38"),
    ],
)
def test_the_warning_names_the_tolerance_the_dtype_and_the_least(name, dtype, value, least):
    y0 = torch.ones(2, dtype=dtype)
    tolerances = {"rtol": 1e-2, "atol": 1e-2} | {name: value}
    with pytest.warns(
        sa.ResolutionWarning, match=rf"{name} = {value:.3g} is below what \S+ resolves, {least}:"
    ) as given:
        for _ in range(2):
            ys = sa.odeint(oscillation, y0, T, **tolerances)
    assert len(given) == 1 and given[0].filename == __file__
    assert (ys[-1] - torch.tensor([1.3818, -0.3012])).abs().max() < 0.02


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize("value", [1e-9, 1e-12, 1e-30, 1e-300, 0.0])
def test_float32_and_half_states_end_as_accurately_as_their_dtype_allows(value, gradient):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        y0 = torch.ones(2, dtype=dtype, requires_grad=True)
        with pytest.warns(sa.ResolutionWarning):
            solution = sa.solve(oscillation, y0, T / 2, rtol=value, atol=value, gradient=gradient)
        sa.errors.forget_warnings()
        assert solution.stats.f_calls_forward < 2000
        (found,) = torch.autograd.grad(solution.ys[-1].sum(), y0)
        exact = torch.tensor([0.39815702, 1.35700810])  # cos 0.5 - sin 0.5, cos 0.5 + sin 0.5
        assert (found.float() - exact).abs().max() < 16 * torch.finfo(dtype).eps  # some ten roundings


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "dop853"])
@pytest.mark.filterwarnings("ignore::symplectic_adjoint.ResolutionWarning")
def test_a_solve_with_no_tolerance_at_all_ends(method, dtype):
    y0 = torch.tensor([1.0, 0.0], dtype=dtype)
    options = {"max_num_steps": 20_000}
    try:
        ys = sa.odeint(oscillation, y0, T / 8, rtol=0.0, atol=0.0, method=method, options=options)
    except (sa.StepSizeUnderflow, sa.TooManySteps):
        return
    exact = torch.tensor([0.992198, -0.124675], dtype=torch.float64)
    assert (ys[-1].double() - exact).abs().max() < 8 * torch.finfo(dtype).eps + 1e-6


def test_tolerances_by_component_and_by_part_are_raised_where_they_must_be():
    rtol = torch.tensor([1e-3, 1e-12])
    with pytest.warns(sa.ResolutionWarning, match="rtol = 1e-12 is below what"):
        ys = sa.odeint(oscillation, torch.ones(2), T, rtol=rtol, atol=1e-4)
    assert torch.equal(rtol, torch.tensor([1e-3, 1e-12])) and torch.isfinite(ys).all()
    with pytest.warns(sa.ResolutionWarning, match="atol = 0 is below what"):
        sa.odeint(lambda t, y: (-y[0], -y[1]), (torch.ones(2), torch.ones(1)), T, rtol=1e-4, atol=(1e-4, 0.0))


@pytest.mark.parametrize("second", [{"rtol": 1e-30, "atol": 1e-30}, {"rtol": 1e-30, "method": "bosh3"}])
def test_the_second_solve_of_the_continuous_gradient_ends_too(second):
    y0 = torch.ones(2, requires_grad=True)
    with pytest.warns(sa.ResolutionWarning, match="rtol = 1e-30 is below"):
        ys = sa.odeint(oscillation, y0, T / 2, rtol=1e-5, atol=1e-5, gradient=sa.Continuous(**second))
    (found,) = torch.autograd.grad(ys[-1].sum(), y0)
    assert (found - torch.tensor([0.39815702, 1.35700810])).abs().max() < 1e-5


def test_fixed_steps_have_no_tolerance_to_warn_of():
    sa.odeint(oscillation, torch.ones(2), T, method="rk4", options={"step_size": 0.1}, rtol=1e-12, atol=0.0)
