"""Repeated times, by hand: which entries they have, and how outputs and cotangents go to and fro."""

import pytest
import torch

from symplectic_adjoint.solve.grid import CONSTANT, FREE, Grid, StepPlan
from symplectic_adjoint.solve.repeated_times import RepeatedTimes

MAP = RepeatedTimes(first=(0, 2, 5), group=(0, 0, 1, 1, 1, 2))


def test_the_map_of_times():
    assert RepeatedTimes.of((0.0, 0.0, 1.0, 1.0, 1.0, 2.0)) == MAP
    assert RepeatedTimes.of((2.0, 2.0, 1.0)) == RepeatedTimes((0, 2), (0, 0, 1))
    assert RepeatedTimes.of((0.0, 1.0, 2.0)) is None
    assert RepeatedTimes.of((0.0,)) is None


def test_repetitions_of_the_start_have_no_time_gradient_of_their_own():
    assert MAP.repeats == [3, 4]


def test_one_more_time_at_both_ends():
    assert MAP.between_ends() == RepeatedTimes((0, 1, 3, 6, 7), (0, 1, 1, 2, 2, 2, 3, 4))


@pytest.mark.parametrize(
    ("distinct", "one_more", "expected"),
    [
        (2, False, RepeatedTimes((0, 2), (0, 0, 1, 1, 1))),
        (2, True, RepeatedTimes((0, 2, 5), (0, 0, 1, 1, 1, 2))),
        (1, True, RepeatedTimes((0, 2), (0, 0, 1))),
    ],
)
def test_the_first_times_alone(distinct, one_more, expected):
    assert MAP.up_to(distinct, one_more=one_more) == expected


def test_outputs_are_repeated_and_cotangents_summed():
    assert MAP.expand(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1, 1, 2, 2, 2, 3]
    assert MAP.fold(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])).tolist() == [3, 28, 32]
    assert MAP.distinct(torch.tensor([5.0, 6.0, 7.0, 8.0, 9.0, 10.0])).tolist() == [5, 7, 10]


def test_a_grid_has_an_output_for_every_entry_and_pins_to_the_first():
    plans = [StepPlan(0.0, 0.5, 0.5, FREE), StepPlan(0.5, 0.5, 1.0, 1), StepPlan(1.0, 1.0, 2.0, CONSTANT)]
    grid = MAP.expand_grid(Grid.from_plans(plans, [-1, 1, 2], [0.0, 1.0, 0.75]))
    assert grid.pinned_to.tolist() == [FREE, 2, CONSTANT]
    assert grid.output_step.tolist() == [-1, -1, 1, 1, 1, 2]
    assert grid.output_sigma.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 0.75]


def test_a_solve_that_failed_has_the_outputs_that_it_reached():
    grid = MAP.expand_grid(Grid.from_plans([StepPlan(0.0, 1.0, 1.0, 1)], [-1, 0], [0.0, 1.0]))
    assert grid.output_step.tolist() == [-1, -1, 0, 0, 0]
