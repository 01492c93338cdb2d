"""The cotangents of times by hand, and times as functions of t."""

import math

import pytest
import torch

from symplectic_adjoint.solve.grid import CONSTANT, FREE, StepPlan
from symplectic_adjoint.solve.timeline import DifferentiableTimeline, TimeCotangents, Timeline, recorded_time


def plan(pinned_to, t=0.0, h=0.5):
    return StepPlan(t, h, t + h, pinned_to)


class TestCotangents:
    def bars(self, *steps, outputs=()):
        bars = TimeCotangents(torch.zeros(3, dtype=torch.float64))
        for pinned_to, t_bar, h_bar in steps:
            bars.add_step(plan(pinned_to), t_bar, h_bar)
        for j, bar in outputs:
            bars.add_output(j, bar)
        return bars.total().tolist()

    def test_a_pinned_end_has_the_size_and_what_follows_and_the_start_the_rest(self):
        # Last to first: the size 3 goes to t[2] and is taken from the start, whose 2 - 3 goes to t[1] with 7.
        assert self.bars((2, 2.0, 3.0), (1, 5.0, 7.0)) == [5.0 - 7.0, 2.0 - 3.0 + 7.0, 3.0]

    def test_a_free_end_moves_with_its_start(self):
        assert self.bars((2, 2.0, 3.0), (FREE, 5.0, 7.0)) == [5.0 + 2.0 - 3.0, 0.0, 3.0]

    def test_a_constant_end_drops_what_it_has(self):
        assert self.bars((2, 2.0, 3.0), (CONSTANT, 5.0, 7.0)) == [5.0 - 7.0, 0.0, 3.0]

    def test_an_output_has_its_own_unless_it_is_no_entry_of_t(self):
        assert self.bars((2, 2.0, 3.0), outputs=[(1, 11.0), (2, 13.0), (3, 17.0)]) == [-1.0, 11.0, 16.0]

    def test_they_have_the_dtype_of_t(self):
        assert TimeCotangents(torch.zeros(2, dtype=torch.float32)).total().dtype == torch.float32


class TestTimes:
    def test_numbers_are_those_of_the_plan(self):
        timeline = Timeline(1.0)
        assert timeline.start == 1.0
        assert timeline.of(plan(FREE, 1.0)) == (1.0, 0.5, 1.5)
        timeline.advance(plan(FREE, 1.0))
        assert timeline.start == 1.5

    def derivatives(self, x, t):
        return [0.0 if g is None else g for g in torch.autograd.grad(x, [t])[0].tolist()]

    def test_a_pinned_step_reaches_to_its_entry_and_a_free_one_moves_with_its_start(self):
        t = torch.tensor([0.0, 0.75, 2.0], dtype=torch.float64, requires_grad=True)
        timeline = DifferentiableTimeline(t)
        start, h, end = timeline.of(plan(FREE))
        assert (start.item(), h, end.item()) == (0.0, 0.5, 0.5)
        assert self.derivatives(end, t) == [1.0, 0.0, 0.0]
        timeline.advance(plan(FREE))
        start, h, end = timeline.of(plan(1, 0.5, 0.25))
        assert (start.item(), h.item(), end.item()) == (0.5, 0.25, 0.75)
        assert self.derivatives(h, t) == [-1.0, 1.0, 0.0]

    def test_a_constant_end_has_no_derivative(self):
        t = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
        timeline = DifferentiableTimeline(t)
        _, h, end = timeline.of(plan(CONSTANT))
        assert end == 0.5 and self.derivatives(h, t) == [-1.0, 0.0]

    def test_an_output_lies_at_its_entry_or_at_a_constant_beyond_them(self):
        t = torch.tensor([0.0, 0.25], dtype=torch.float64, requires_grad=True)
        timeline = DifferentiableTimeline(t)
        step = type("Step", (), {"t": timeline.start, "h": 0.5})
        assert self.derivatives(timeline.sigma(1, step, 0.25), t) == [-2.0, 2.0]
        assert timeline.sigma(1, step, 0.25).item() == 0.5
        assert self.derivatives(timeline.sigma(2, step, 0.375), t) == [-2.0, 0.0]
        assert Timeline(0.0).sigma(1, type("Step", (), {"t": 0.25, "h": 0.5}), 0.5) == 0.5


class TestRecordedTimes:
    TIME, ULP = 1.5, math.ulp(1.5)

    def test_a_time_that_differs_by_rounding_has_the_recorded_value_and_its_derivative(self):
        t = torch.tensor(self.TIME, dtype=torch.float64, requires_grad=True)
        for ulps in (-8, 1, 8):
            value = self.TIME + ulps * self.ULP
            assert recorded_time(value, t).item() == value
        recorded_time(self.TIME + self.ULP, t).backward()
        assert t.grad == 1.0

    @pytest.mark.parametrize("ulps", [-9, 9])
    def test_one_that_differs_by_more_is_another_time(self, ulps):
        t = torch.tensor(self.TIME, dtype=torch.float64)
        assert recorded_time(self.TIME + ulps * self.ULP, t) is t

    def test_a_number_is_the_recorded_one(self):
        assert recorded_time(2.0, 1.0) == 2.0
