"""Reversible steps by hand, h = 1/2 from t = 0 with f(t, y) = 2 y + t. All numbers are exact in binary."""

import pytest
import torch

from symplectic_adjoint import METHODS
from symplectic_adjoint.methods.leapfrog import damping, leapfrog
from symplectic_adjoint.steps.landing import LandingStep
from symplectic_adjoint.steps.leapfrog import LeapfrogStep
from symplectic_adjoint.steps.reversible import CoupledStep, reversed_step
from tests.symplectic_adjoint.steps.slope import Slope


def number(x):
    return torch.tensor([x], dtype=torch.float64)


class TestLeapfrog:
    @pytest.mark.parametrize(
        ("eta", "slope", "end"),
        # v = 2, y_half = 1.5, u = 3 + 1/4: v+ = v + 2 eta 1.25, y+ = y_half + v+/4.
        [(1.0, 4.5, 2.625), (0.75, 3.875, 2.46875)],
    )
    def test_a_step_moves_the_state_and_its_slope(self, eta, slope, end):
        step = LeapfrogStep(Slope(), leapfrog(eta), 0.0, 0.5, 0.5, number(1.0), ks=[number(2.0)])
        assert (step.end_slope().item(), step.end().item()) == (slope, end)
        assert step.end_slope() is step.end_slope()
        assert step.f.times == [0.25]
        assert damping(step.tableau) == eta

    def test_the_error_estimate_is_the_distance_from_a_step_along_the_slope(self):
        # Along v alone the step ends at 1 + 2/2.
        step = LeapfrogStep(Slope(), leapfrog(1.0), 0.0, 0.5, 0.5, number(1.0), ks=[number(2.0)])
        assert [error.item() for error in step.errors()] == [0.625]

    def test_damping_costs_an_order(self):
        assert [leapfrog(eta).order for eta in (1.0, 0.75)] == [2, 1]


class TestCoupled:
    """y = 1, z = 3/2 and C = 1/4 with Euler's method: P(t, z; h) = h f(t, z)."""

    def step(self, companion=1.5, **given):
        pair = {"companion": None if companion is None else number(companion), "coupling": 0.25}
        return CoupledStep(Slope(), METHODS["euler"], 0.0, 0.5, 0.5, number(1.0), **pair, **given)

    def test_both_states_are_moved(self):
        # y+ = 1/4 + 3/4 (3/2) + (3)/2 = 2.875; P(1/2, y+; -1/2) = -(5.75 + 1/2)/2, z+ = 1.5 + 3.125.
        step = self.step()
        assert (step.end().item(), step.end_companion().item()) == (2.875, 4.625)
        assert step.f.f_calls == 2 and step.f.times == [0.0, 0.5]
        step.end_companion()
        assert step.f.f_calls == 2

    def test_the_second_state_starts_at_the_first(self):
        # y+ = 1 + 2/2.
        assert self.step(companion=None).end().item() == 2.0

    def test_the_row_after_the_last_is_the_step_of_the_second_state(self):
        step = self.step()
        step.evaluate(1)
        assert (step.state(0).item(), step.state(1).item()) == (1.5, 3.0)

    def test_f_at_the_end_is_not_known(self):
        step = self.step()
        step.end_companion()
        assert step.end_slope() is None

    @pytest.mark.parametrize("open_ends", [(True, False), (False, True)])
    def test_the_step_back_starts_just_inside_at_the_end(self, open_ends):
        step = self.step(open_ends=open_ends)
        step.end_companion()
        first, last = open_ends
        assert step.f.times == [1 / 64 if first else 0.0, 0.5 - 1 / 64 if last else 0.5]

    def test_the_step_back_is_the_step_of_the_opposite_size_from_the_end(self):
        back = reversed_step(Slope(), METHODS["euler"], 0.0, 0.5, 0.5, number(2.0), (True, False))
        assert (back.t, back.h, back.t_end, back.open_ends) == (0.5, -0.5, 0.0, (False, True))
        # 2 - (4 + 1/2)/2.
        assert back.end().item() == -0.25


class TestLanding:
    def step(self):
        # y+ = 1 + 2/2 = 2, where f is 4 + 1/2.
        return LandingStep(Slope(), METHODS["euler"], 0.0, 0.5, 0.5, number(1.0))

    def test_its_output_is_its_end(self):
        assert self.step().output(1.0).item() == 2.0

    def test_a_differentiable_output_moves_along_f(self):
        sigma = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        output = self.step().output(sigma)
        output.backward()
        assert (output.item(), sigma.grad.item()) == (2.0, 2.25)
        beyond = self.step().output(torch.tensor(1.25, dtype=torch.float64))
        assert beyond.item() == 2.0 + 0.25 * 2.25

    def test_its_slope_is_known_at_its_end_alone(self):
        assert self.step().slope(1.0).item() == 4.5
        with pytest.raises(AssertionError):
            self.step().slope(0.5)
