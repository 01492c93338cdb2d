"""check_gradient finds gradients that are exact for their steps and useless for the ODE."""

import math
from itertools import product

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.diagnostics.halved_steps import halved
from symplectic_adjoint.solve.grid import CONSTANT, FREE, StepPlan
from tests.fields import SmallNet, start

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
METHODS = ["bosh3", "dopri5", "dop853", "dopri8"]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


class Forced(nn.Module):
    """y' = c [sin 20t, cos 20t]."""

    def __init__(self, c):
        super().__init__()
        self.c = nn.Parameter(torch.full((2,), c, dtype=torch.float64))

    def forward(self, t, y):
        return self.c * torch.stack([torch.sin(20.0 * t), torch.cos(20.0 * t)])


class ZeroInitialised(nn.Module):
    """A network of y and of sinusoidal features of time, whose last layer is zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).double()
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def forward(self, t, y):
        return self.net(torch.cat([y, torch.stack([torch.sin(20.0 * t), torch.cos(20.0 * t)])]))


class Thresholded(nn.Module):
    """A decay that step control sees, and a term that has been thresholded to zero."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(vector(0.5, 1e-4))

    def forward(self, t, y):
        c = torch.where(self.c.abs() > 1e-3, self.c, 0.0 * self.c)
        kept = c[0] + (self.c[1] - self.c[1].detach())  # the straight-through gradient of a pruned coefficient
        return -kept * y + (self.c[1] - self.c[1].detach()) * torch.sin(40.0 * t) * y


class Pendulum(nn.Module):
    """At rest: the state says nothing of its linearization, which oscillates."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(225.0, dtype=torch.float64))

    def forward(self, t, y):
        return torch.stack([y[1], -self.k * torch.sin(y[0])])


TRAPS = {
    "coefficient": (lambda: Forced(0.0), vector(1.0, 1.0), T, "c"),
    "layer": (ZeroInitialised, vector(1.0, 0.5), T, "net.2.weight"),
    "thresholded": (Thresholded, vector(1.0, 2.0), 5.0 * T, "c"),
    "equilibrium": (Pendulum, vector(0.0, 0.0), 3.0 * T, "y0"),
}


@pytest.mark.parametrize(
    ("trap", "method", "tolerance"),
    [
        *product(TRAPS, ["dopri5"], [1e-7]),
        *product(TRAPS, ["dopri8"], [1e-10]),
        *product(["coefficient", "layer", "equilibrium"], ["bosh3"], [1e-5]),  # its steps suffice for the other
    ],
)
def test_steps_that_are_useless_for_the_gradient_are_found(trap, method, tolerance):
    make, y0, t, name = TRAPS[trap]
    check = sa.check_gradient(make(), y0, t, method=method, rtol=tolerance, atol=tolerance)
    assert not check.steps_suffice and not check.ok
    assert check.step_errors[name] > check.step_limit
    assert max(check.errors.values()) <= check.tolerance  # exact for its steps
    assert "give max_step in options" in str(check)


def test_the_estimate_is_of_the_size_of_the_error():
    check = sa.check_gradient(Forced(0.0), vector(1.0, 1.0), T, rtol=1e-10)
    # The gradient is [0.454, -0.468] for [0.0296, 0.0456], weighted here by 1 + y and the weights of the loss.
    assert 5.0 < check.step_errors["c"] < 15.0
    assert check.step_errors["y0"] == 0.0


def test_the_remedies_pass():
    for keywords in ({"options": {"max_step": 0.01}}, {"options": {"max_step": 0.02}, "method": "dopri8"}):
        check = sa.check_gradient(Forced(0.0), vector(1.0, 1.0), T, rtol=1e-7, atol=1e-7, **keywords)
        assert check.ok, str(check)
    mixed = sa.Continuous(options={"norm": "mixed"})
    check = sa.check_gradient(Forced(0.0), vector(1.0, 1.0), T, rtol=1e-7, atol=1e-7, gradient=mixed)
    assert not check.steps_suffice  # half steps of a forward pass that is too coarse are no reference for it
    check = sa.check_gradient(Forced(0.5), vector(1.0, 1.0), T, rtol=1e-7, atol=1e-7)
    assert check.ok, str(check)


class Kepler(nn.Module):
    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t, y):
        return torch.cat([y[2:], -self.k * y[:2] / y[:2].norm() ** 3])


class VanDerPol(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

    def forward(self, t, y):
        return torch.stack([y[1], self.m * (1.0 - y[0] ** 2) * y[1] - y[0]])


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t, y):
        return -self.m * y


ORDINARY = {
    "network": (SmallNet, start(), vector(0.0, 0.35, 1.0)),
    "kepler": (Kepler, vector(1.0, 0.0, 0.0, 1.1), vector(0.0, 4.0, 12.0)),
    "van der pol": (VanDerPol, vector(2.0, 0.0), vector(0.0, 3.5, 10.0)),
    "decay": (Decay, vector(1.0, 2.0), vector(0.0, 7.0, 20.0)),
    "small values": (Decay, vector(1e-7, 2e-7), T),
    "large values": (Decay, vector(1e7, 2e7), T),
}


CASES = [
    (name, method, tolerance)
    for tolerance in (1e-3, 1e-5, 1e-8)
    for name in ORDINARY
    for method in METHODS
    if method != "bosh3" or tolerance > 1e-8  # which takes it thousands of steps
]


@pytest.mark.parametrize(("name", "method", "tolerance"), CASES[::3])
def test_ordinary_solves_raise_no_alarm(name, method, tolerance):
    make, y0, t = ORDINARY[name]
    check = sa.check_gradient(make(), y0, t, method=method, rtol=tolerance, atol=tolerance)
    assert check.steps_suffice, str(check)


def test_single_precision_raises_no_alarm():
    check = sa.check_gradient(SmallNet().float(), start().float(), T.float(), rtol=1e-5, atol=1e-5)
    assert check.ok, str(check)


def test_fixed_steps_have_an_estimate_and_no_limit():
    for make, y0 in ((lambda: Forced(0.0), vector(1.0, 1.0)), (SmallNet, start())):
        check = sa.check_gradient(make(), y0, T, method="rk4", options={"step_size": 0.25})
        assert check.ok and check.step_limit is None
        assert max(check.step_errors.values()) > 1e-6
    fine = sa.check_gradient(Forced(0.0), vector(1.0, 1.0), T, method="rk4", options={"step_size": 0.005})
    # (20 h)^4 / 2880 of 1/20 over the gradient, of a composite Simpson rule.
    assert 1e-8 < fine.step_errors["c"] < 1e-5


def test_halved_steps_cover_the_same_grid():
    plans = [
        StepPlan(0.0, 0.3, 0.3, FREE, True, False),
        StepPlan(0.3, 0.4, 0.7, CONSTANT, False, True),
        StepPlan(0.7, math.ulp(0.7), 0.7 + math.ulp(0.7), 1, True, False),
    ]
    halves = list(halved(plans))
    assert [p.t for p in halves[1:]] == [p.t_end for p in halves[:-1]]
    assert [p.pinned_to for p in halves] == [FREE, FREE, FREE, CONSTANT, 1]
    assert [(p.open_start, p.open_end) for p in halves] == [
        (True, False), (False, False), (False, False), (False, True), (True, False)
    ]  # fmt: skip
