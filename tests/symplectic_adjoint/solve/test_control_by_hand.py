"""The steps that control chooses, against the textbook's formulas written out for one small problem."""

import math

import pytest
import torch

from symplectic_adjoint import METHODS, odeint, solve
from symplectic_adjoint.solve.step_control import StepControl

END = 3.0
FIRST = {"dopri8": 0.05}  # of a shorter step the estimate would be rounding error


def van_der_pol(t, y):
    x, v = y.unbind(-1)
    return torch.stack((v, 5.0 * (1.0 - x * x) * v - x), -1)


START = torch.tensor([2.0, 0.3], dtype=torch.float64)


def rms(x):
    return x.square().mean().sqrt().item()


def by_hand(tableau, rtol, controller, first, most):
    """Return the sizes of the first `most` accepted steps, and the number of steps rejected meanwhile."""
    A, b, c, e = (
        [[float(a) for a in row] for row in tableau.A],
        *([float(x) for x in row] for row in (tableau.b, tableau.c, tableau.b_error)),
    )
    order = tableau.error_order + 1
    t, y, h, previous, after_rejection = 0.0, START, first, 1e-4, False
    sizes, rejected = [], 0
    while len(sizes) < most:
        ks = []
        for row, node in zip(A, c, strict=True):
            ks.append(van_der_pol(t + node * h, y + h * sum((a * k for a, k in zip(row, ks, strict=True)), 0.0 * y)))
        new = y + h * sum(weight * k for weight, k in zip(b, ks, strict=True))
        error = h * sum(weight * k for weight, k in zip(e, ks, strict=True))
        ratio = rms(error / (rtol + rtol * torch.maximum(y.abs(), new.abs())))
        if ratio > 1.0:
            rejected, after_rejection = rejected + 1, True
            h *= max(0.2, 0.9 * ratio ** (-1.0 / order))
            continue
        if controller == "PI":
            factor = min(10.0, max(0.2, 0.9 * ratio ** (-0.7 / order) * max(previous, 1e-4) ** (0.4 / order)))
        else:
            factor = min(10.0, max(1.0, 0.9 * ratio ** (-1.0 / order)))
        sizes.append(h)
        t, y, previous = t + h, new, ratio
        h *= min(factor, 1.0) if after_rejection else factor
        after_rejection = False
    assert t + 1.1 * h < END, "so many steps reach the end, which cuts a step short"
    return sizes, rejected


# dop853 combines two estimates, below. The tightest tolerance of each method takes a few hundred steps.
CASES = [
    *(("adaptive_heun", rtol) for rtol in (1e-2, 1e-4)),
    *(("bosh3", rtol) for rtol in (1e-2, 1e-5, 1e-7)),
    *((name, rtol) for name in ("dopri5", "tsit5") for rtol in (1e-3, 1e-6, 3e-11, 1e-12)),
    *(("dopri8", rtol) for rtol in (1e-6, 3e-11, 1e-12)),
]


@pytest.mark.parametrize("controller", ["I", "PI"])
@pytest.mark.parametrize(("method", "rtol"), CASES)
def test_every_step_has_the_size_that_the_formula_gives(method, rtol, controller):
    first = FIRST.get(method, 1e-3)
    options = {"first_step": first, "controller": controller}
    T = torch.tensor([0.0, END], dtype=torch.float64)
    with torch.no_grad():
        solved = solve(van_der_pol, START, T, method=method, rtol=rtol, atol=rtol, options=options)
    most = min(60, solved.stats.accepted - 3)
    sizes, rejected = by_hand(METHODS[method], rtol, controller, first, most)
    # At 1e-12 the estimate is some 1e4 rounding errors, and its fifth root gives the size; a wrong exponent, safety or
    # factor of the estimate moves sizes by percents.
    assert solved.grid.h[:most].tolist() == pytest.approx(sizes, rel=1e-3)
    assert most >= 10 and rejected <= solved.stats.rejected


def test_rejected_steps_are_counted_one_by_one():
    """From a first step far too long, every retry but the last is rejected."""
    options = {"first_step": END}
    T = torch.tensor([0.0, END], dtype=torch.float64)
    for method in ("dopri5", "bosh3"):
        for rtol in (1e-4, 1e-11 if method == "dopri5" else 1e-7):
            calls = []

            def counted(t, y, calls=calls):
                calls.append(float(t))
                return van_der_pol(t, y)

            with torch.no_grad():
                stats = solve(counted, START, T, method=method, rtol=rtol, atol=rtol, options=options).stats
            stages = METHODS[method].stages
            # f at the start; then each attempt, rejected or not, has its stages but the first, and f at its end.
            assert len(calls) == stats.f_calls_forward == 1 + stages * (stats.accepted + stats.rejected)
            assert stats.rejected > 2


@pytest.mark.parametrize(
    ("ratio", "previous", "order", "controller", "expected"),
    [
        (0.5, 1.0, 5, "I", 0.9 * 0.5**-0.2),
        (0.99, 1.0, 5, "I", 1.0),  # an accepted step is not shortened
        (32.0, 1.0, 5, "I", 0.45),
        (1e-30, 1.0, 5, "I", 10.0),
        (1e30, 1.0, 5, "I", 0.2),
        (0.5, 0.01, 5, "PI", 0.9 * 0.5**-0.14 * 0.01**0.08),
        (0.5, 0.9, 3, "PI", 0.9 * 0.5 ** (-0.7 / 3) * 0.9 ** (0.4 / 3)),
        (0.5, 1e-9, 5, "PI", 0.9 * 0.5**-0.14 * 1e-4**0.08),
        (1.0, 1e-4, 5, "PI", 0.9 * 1e-4**0.08),  # may shorten an accepted step
        (1e-30, 1.0, 5, "PI", 10.0),
        (32.0, 0.01, 5, "PI", 0.45),
    ],
)
def test_the_factor_is_that_of_the_formula(ratio, previous, order, controller, expected):
    control = StepControl(1e-6, 1e-6, controller=controller)
    assert control.factor(ratio, previous, order) == pytest.approx(expected, rel=1e-12)


class TwoEstimates:
    """A step with the two error estimates of dop853, of known norms."""

    class f:
        resolution = None

    y = torch.zeros(4, dtype=torch.float64)

    def __init__(self, high, low):
        self._norms = high, low

    def measured_norms(self):
        return None

    def end(self):
        return torch.zeros(4, dtype=torch.float64)

    def errors(self):
        return [torch.full((4,), norm, dtype=torch.float64) for norm in self._norms]


@pytest.mark.parametrize("rtol", [1e-3, 1e-12])
def test_the_two_estimates_of_dop853_are_combined_as_published(rtol):
    high, low = 3.0 * rtol, 20.0 * rtol
    expected = 3.0**2 / math.sqrt(3.0**2 + 0.01 * 20.0**2)
    assert StepControl(rtol, rtol).error_ratio(TwoEstimates(high, low)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rtol", [1e-2, 1e-6, 1e-9, 1e-11, 1e-13])
def test_the_error_ratio_is_the_norm_of_the_estimate_over_the_tolerance(rtol):
    """atol + rtol |y|, with the larger of the sizes at both ends of the step, at every tolerance alike."""
    step = TwoEstimates(2.0, 0.0)
    step.y = torch.tensor([0.0, 1.0, -3.0, 0.0], dtype=torch.float64)
    step.end = lambda: torch.tensor([0.0, -2.0, 1.0, 0.0], dtype=torch.float64)
    step.errors = lambda: [torch.tensor([2.0, 4.0, 1.0, 0.0], dtype=torch.float64) * rtol]
    atol = 3.0 * rtol
    expected = rms(torch.tensor([2.0 / 3.0, 4.0 / 5.0, 1.0 / 6.0, 0.0], dtype=torch.float64))
    assert StepControl(rtol, atol).error_ratio(step) == pytest.approx(expected, rel=1e-12)


def test_a_structured_state_is_controlled_by_its_worst_part():
    """As with the largest of the parts' norms given as option, and not as with their mean."""

    def func(t, state):
        return {"a": state["b"][:2], "b": -state["b"]}

    def chosen(**options):
        y0 = {"a": torch.ones(2, dtype=torch.float64), "b": torch.full((3,), 40.0, dtype=torch.float64)}
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        with torch.no_grad():
            return solve(func, y0, t, rtol=1e-4, atol=1e-4, options={"first_step": 1e-2, **options}).grid.h

    largest = chosen(norm=lambda parts: max(parts.values(), key=rms).square().mean().sqrt())
    mean = chosen(norm=lambda parts: torch.stack([x.square().mean().sqrt() for x in parts.values()]).mean())
    torch.testing.assert_close(chosen(), largest, rtol=1e-12, atol=0.0)  # to rounding
    assert len(mean) != len(largest) or not torch.allclose(mean, largest, rtol=1e-3)


def test_the_solution_has_the_accuracy_that_a_tight_tolerance_asks_for():
    """So that an estimate cannot be made smaller below some tolerance unnoticed."""
    t = torch.tensor([0.0, 5.0], dtype=torch.float64)
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for rtol in (1e-9, 1e-11):
        with torch.no_grad():
            ys = odeint(lambda t, y: torch.stack((y[1], -y[0])), y0, t, rtol=rtol, atol=rtol)
        exact = torch.stack((torch.cos(t[1]), -torch.sin(t[1])))
        # The errors of some hundred steps, each below the tolerance, add up.
        assert (ys[1] - exact).abs().max() < 100 * rtol
