"""The norm "mixed" of gradient="continuous": step control of the parameters' gradient."""

import math

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
EXACT = torch.tensor([(1.0 - math.cos(20.0)) / 20.0, math.sin(20.0) / 20.0], dtype=torch.float64)
"""The integrals of sin 20t and cos 20t over [0, 1]."""
ADAPTIVE = ["adaptive_heun", "bosh3", "dopri5", "tsit5", "dop853", "dopri8"]


class Forced(nn.Module):
    """y' = c [sin 20t, cos 20t]: with c = 0 neither y nor lam says anything about dL/dc."""

    def __init__(self, c=0.0, unused=False):
        super().__init__()
        self.c = nn.Parameter(torch.full((2,), c, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64)) if unused else None

    def forward(self, t, y):
        return self.c * torch.stack([torch.sin(20.0 * t), torch.cos(20.0 * t)])


def gradient_of(func, t=T, solver=sa.odeint, **keywords):
    y0 = torch.ones(2, dtype=torch.float64)
    ys = solver(func, y0, t, **keywords)
    return torch.autograd.grad(ys[1:].sum(), func.c)[0]


MIXED = sa.Continuous(options={"norm": "mixed"})


@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_gradient_of_a_coefficient_that_is_zero_is_resolved(method):
    tolerance = 1e-5 if method == "adaptive_heun" else 1e-8
    keywords = {"method": method, "rtol": tolerance, "atol": tolerance}
    assert (gradient_of(Forced(), gradient=MIXED, **keywords) - EXACT).abs().max() < tolerance
    assert (gradient_of(Forced(), gradient="continuous", **keywords) - EXACT).abs().max() > 0.1  # the trap


def test_odeint_adjoint_takes_it_among_the_adjoint_options():
    keywords = {"solver": sa.odeint_adjoint, "rtol": 1e-10, "atol": 1e-10, "adjoint_options": {"norm": "mixed"}}
    assert (gradient_of(Forced(), gradient="continuous", **keywords) - EXACT).abs().max() < 1e-10
    with pytest.warns(sa.IgnoredArgumentWarning, match="no second solve"):
        exact = gradient_of(Forced(1.0), gradient="symplectic", **keywords)
    assert (exact - EXACT).abs().max() < 1e-9
    with pytest.raises(TypeError, match="'seminorm' or 'mixed', got 'mixd'"):
        gradient_of(Forced(), gradient="symplectic", **{**keywords, "adjoint_options": {"norm": "mixd"}})


def test_the_tolerance_counts_the_gradient_of_all_outputs():
    """The running integral goes on from output to output."""
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    early = torch.tensor([(1.0 - math.cos(6.0)) / 20.0, math.sin(6.0) / 20.0], dtype=torch.float64)
    got = gradient_of(Forced(), t, gradient=MIXED, rtol=1e-9, atol=1e-9)
    assert (got - EXACT - early).abs().max() < 1e-9


def test_a_parameter_that_is_not_used_does_not_matter():
    func = Forced(unused=True)
    assert (gradient_of(func, gradient=MIXED, rtol=1e-8, atol=1e-8) - EXACT).abs().max() < 1e-8


def test_steps_tighten_with_the_tolerance_of_the_second_solve():
    def steps(tolerance):
        gradient = sa.Continuous(rtol=tolerance, atol=tolerance, options={"norm": "mixed"})
        solution = sa.solve(Forced(), torch.ones(2, dtype=torch.float64), T, gradient=gradient)
        solution.ys[-1].sum().backward()
        return solution.stats.accepted_backward

    # An error per step of the fifth power of its size: 10^(3 / 5) = 4 times as many for a thousandth.
    assert 3.0 < steps(1e-9) / steps(1e-6) < 5.0


def test_complex_states_and_float32_parameters():
    c = torch.zeros(2, dtype=torch.complex128, requires_grad=True)
    force = torch.tensor([20j, -20j], dtype=torch.complex128)
    ys = sa.odeint(
        lambda t, y: c * torch.exp(force * t), torch.ones(2, dtype=torch.complex128), T, params=(c,), gradient=MIXED,
        rtol=1e-8, atol=1e-8,
    )  # fmt: skip
    (got,) = torch.autograd.grad(ys[-1].real.sum(), c)
    assert (got - ((torch.exp(force) - 1.0) / force).conj()).abs().max() < 1e-8
    func = Forced().float()
    ys = sa.odeint(func, torch.ones(2), T, gradient=MIXED, rtol=1e-5, atol=1e-5)
    assert (torch.autograd.grad(ys[-1].sum(), func.c)[0].double() - EXACT).abs().max() < 2e-5


def test_it_is_refused_where_the_second_solve_has_fixed_steps():
    options = {"norm": "mixed", "step_size": 0.1}
    with pytest.raises(ValueError, match="norm 'mixed' belongs to adaptive step sizes"):
        gradient_of(Forced(), gradient=sa.Continuous(method="rk4", options=options))
