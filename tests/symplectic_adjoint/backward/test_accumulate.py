"""accumulate=: sums over many steps without the rounding error of their terms' precision."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.backward.running_sum import CompensatedSum
from tests.fields import SmallNet, start, weighted_loss

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
STEPS = 3000


class Drift(nn.Module):
    """y' = theta: every step adds h to dL/dtheta, whose only error is that of the sum."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.3]))

    def forward(self, t, y):
        return self.theta.expand_as(y)


class Growth(nn.Module):
    """y' = theta y / 1000: every step adds a small term to lam."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.7]))

    def forward(self, t, y):
        return 1e-3 * self.theta * y


def gradients(func, dtype, gradient, accumulate):
    y0 = torch.tensor([1.1], dtype=dtype, requires_grad=True)
    func = func.to(dtype)
    options = {"step_size": 1.0 / STEPS}
    ys = sa.odeint(func, y0, T, method="euler", options=options, gradient=gradient, accumulate=accumulate)
    return torch.autograd.grad(ys[-1].sum(), (y0, func.theta))


@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca"])
@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
@pytest.mark.parametrize(("make", "which"), [(Drift, 1), (Growth, 0)])
def test_sums_over_thousands_of_steps_have_no_rounding_error_of_their_own(make, which, accumulate, gradient):
    exact = gradients(make(), torch.float64, gradient, None)[which]
    plain, careful = (gradients(make(), torch.float32, gradient, how)[which].double() for how in (None, accumulate))
    assert careful.dtype == exact.dtype
    unit = torch.finfo(torch.float32).eps * exact.abs()
    # The plain sum makes a random walk of 3,000 rounding errors; the accurate one rounds its terms and its result:
    # each term by half a unit of its own, so one unit in all, and one for the result.
    assert (plain - exact).abs() > 4 * unit
    assert (careful - exact).abs() <= 2 * unit


@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca"])
@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
def test_the_gradient_is_the_same_in_float64(accumulate, gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)

    def of(how):
        ys = sa.odeint(func, y0, t, rtol=1e-6, atol=1e-6, gradient=gradient, accumulate=how)
        return torch.autograd.grad(weighted_loss(ys), (y0, t, *func.parameters()), allow_unused=True)

    for a, b in zip(of(accumulate), of(None), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)  # the same sums, rounded differently


def test_a_compensated_sum_is_as_accurate_as_a_sum_in_twice_the_precision():
    terms = torch.rand(10_000, dtype=torch.float32, generator=torch.Generator().manual_seed(0)) - 0.3
    total = CompensatedSum()
    for x in terms:
        total.add(x)
    exact = terms.double().sum()
    result = total.total()
    assert result is not None and abs(result.double() - exact) <= torch.finfo(torch.float32).eps * exact.abs()


@pytest.mark.parametrize("accumulate", [None, "float64", "compensated"])
def test_the_cotangent_of_the_loss_is_not_modified(accumulate):
    cotangent = torch.ones(2, 1)
    ys = sa.odeint(Drift(), torch.zeros(1, requires_grad=True), T, method="euler", accumulate=accumulate)
    ys.backward(cotangent)
    assert torch.equal(cotangent, torch.ones(2, 1))


@pytest.mark.parametrize("gradient", ["backprop", "baseline", "continuous"])
def test_a_gradient_that_does_not_sum_step_by_step_refuses_it(gradient):
    with pytest.raises(sa.UnsupportedCombination, match=f"accumulate='float64'.*gradient='{gradient}'.*symplectic"):
        sa.odeint(SmallNet(), start(), T, gradient=gradient, accumulate="float64")


def test_an_unknown_value_is_named():
    with pytest.raises(ValueError, match="'float64', 'compensated', got 'double'"):
        sa.odeint(SmallNet(), start(), T, accumulate="double")


def test_it_is_refused_under_functional_transforms():
    def loss(y0):
        return sa.odeint(SmallNet(), y0, T, method="euler", accumulate="compensated").sum()

    with pytest.raises(sa.UnsupportedCombination, match=r"torch\.func"):
        torch.func.grad(loss)(start())
