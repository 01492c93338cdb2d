"""The record of a solve by hand: which outputs are dense, and what they cost on a graph."""

import pytest

from symplectic_adjoint import METHODS
from symplectic_adjoint.solve.grid import FREE, StepPlan
from symplectic_adjoint.solve.stats import Choice, Stats
from symplectic_adjoint.solve.trajectory import Trajectory


def trajectory(plans, output_step):
    stats = Stats("rk4", "symplectic")
    return Trajectory(plans, output_step, [0.5] * len(output_step), stats, field=None)  # type: ignore[arg-type]


TWO = [StepPlan(0.0, 1.0, 1.0, 2), StepPlan(1.0, 1.0, 2.0, FREE)]


def test_an_output_on_its_own_pinned_end_is_not_dense():
    assert trajectory(TWO, [-1, 0, 0, 1, 1]).dense_outputs() == {0: [1], 1: [3, 4]}


@pytest.mark.parametrize(
    ("method", "output_step", "calls"),
    [
        # rk4: four stages, and dense output of its own. bosh3: three, and f at the end, which the next step shares.
        ("rk4", [-1, 0, 0, 1], 8),
        ("bosh3", [-1, 0, 0], 6),
        ("bosh3", [-1, 0, 0, 1], 7),
        # dop853: twelve stages, f at the end, and three more.
        ("dop853", [-1], 24),
        ("dop853", [-1, 0, 0], 27),
        ("dop853", [-1, 0, 0, 1], 31),
    ],
)
def test_the_f_calls_on_a_graph(method, output_step, calls):
    assert trajectory(TWO, output_step).f_calls_on_graph(METHODS[method]) == calls


def test_counts_begin_at_zero():
    counts = vars(Stats("rk4", "symplectic"))
    assert counts.pop("method") == "rk4" and counts.pop("gradient") == "symplectic" and counts.pop("choice") is None
    for name in ("capture", "stiff_at", "stages", "stages_backward"):
        assert counts.pop(name) is None
    assert len(counts) == 7 and set(counts.values()) == {0}


def test_a_grid_is_made_of_the_plans():
    grid = trajectory(TWO, [-1, 0]).make_grid()
    assert (grid.t.tolist(), grid.pinned_to.tolist(), grid.output_step.tolist()) == ([0.0, 1.0], [2, FREE], [-1, 0])
    assert grid.open_start.tolist() == grid.open_end.tolist() == [False, False]


@pytest.mark.parametrize(
    ("graphs", "held", "why"),
    [
        (8, "every graph", "all there is"),
        (7, "the graphs of the last 7 of 8 f calls", "what saves most f calls"),
    ],
)
def test_a_choice_says_what_was_held(graphs, held, why):
    choice = Choice(2048, 1024, steps=2, f_calls=8, starts=1, stages=5, graphs=graphs)
    assert str(choice) == (
        f"held {held}, 5 of 6 stages besides the starts, and the starts of 1 of 2 steps: {why} within 2 KiB "
        "(predicted peak 1 KiB)"
    )
