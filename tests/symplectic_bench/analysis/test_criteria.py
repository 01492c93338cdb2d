from dataclasses import replace
from typing import Any, get_args

import pytest

from symplectic_bench.analysis.criteria import CriterionOutcome, evaluate
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.criteria import Criterion, Measure
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale, load_suite, suite_names
from tests.symplectic_bench.sample_rows import a_cell, a_row, first_look, group


def criterion(**changes):
    values: dict[str, Any] = {"name": "time over the floor", "cells": {"contender": "ours"}}
    return Criterion(**{**values, "measure": "time_over_floor", "at_most": 2.0, **changes})


def results(rows, *criteria, missing=()):
    cells = [*(row.cell for row in rows), *missing]
    return evaluate(criteria, cells, lines_of(summarize(rows)))


def evaluations(rows, one, missing=()):
    (result,) = results(rows, one, missing=missing)
    return result.evaluations


def fixed(steps, **changes):
    """Rows of the symplectic gradient that differ in the number of steps."""
    cell = a_cell(method="rk38", rtol=None, atol=None, steps=steps)
    return a_row(
        cell, **{"total_s": 2e-3 * steps, "peak_tensor_bytes": 1000 + 300 * steps, "state_bytes": 100, **changes}
    )


class TestGaveUp:
    def given_up(self, **changes):
        row = replace(a_row(a_cell(contender="paper"), forward_disagrees=False), **changes)
        (found,) = evaluations(
            [row], criterion(cells={"contender": "paper"}, measure="gave_up", at_least=1.0, at_most=None)
        )
        return found

    def test_a_solver_that_gives_up_shows_the_defect_and_one_that_ends_does_not(self):
        diverged = self.given_up(status=Status.DIVERGED, reason="RuntimeError: two devices", total_s=None)
        assert (diverged.value, diverged.outcome) == (1, CriterionOutcome.MET)
        assert (self.given_up().value, self.given_up().outcome) == (0, CriterionOutcome.NOT_MET)
        assert self.given_up(forward_disagrees=True).value == 0

    @pytest.mark.parametrize("status", [Status.ERROR, Status.SKIPPED, Status.OOM, Status.TIMEOUT])
    def test_any_other_end_shows_nothing(self, status):
        found = self.given_up(status=status, reason="because")
        assert (found.outcome, found.note) == (CriterionOutcome.NOT_MEASURED, f"{status}: because")


class TestOneCell:
    def test_each_cell_is_compared_with_the_limit_by_its_own_number(self):
        found = {one.name: (round(one.value or 0, 3), one.outcome) for one in evaluations(group(), criterion())}
        assert found["ours aca"] == (2.1, CriterionOutcome.NOT_MET)
        assert found["ours baseline"] == (2.0, CriterionOutcome.MET)  # at most, not below
        assert len(found) == 6

    def test_a_criterion_selects_the_cells_that_have_every_axis_and_size_named(self):
        rows = [*group(), *group(sizes=(("layers", 2), ("state", 8), ("width", 16)))]
        chosen = criterion(cells={"contender": "ours", "gradient": ["aca", "stages"], "width": [16, 128]})
        assert [one.name for one in evaluations(rows, chosen)] == ["ours aca", "ours stages"]
        assert {one.group for one in evaluations(rows, chosen)} == {
            "mlp(state=8, width=16) batch 128, dopri5 rtol 1e-06 atol 1e-08, float64"
        }

    def test_a_criterion_that_selects_no_cell_is_not_measured(self):
        (found,) = evaluations(group(), criterion(cells={"width": 7}))
        assert (found.outcome, found.note) == (
            CriterionOutcome.NOT_MEASURED,
            "the suite has no such cell at this scale",
        )

    @pytest.mark.parametrize(
        ("changes", "note"),
        [
            ({"status": Status.SKIPPED, "reason": "jax is not installed"}, "skipped: jax is not installed"),
            ({"status": Status.TIMEOUT}, "timeout"),
            ({"forward_disagrees": True}, "its forward solution disagrees with the reference"),
            ({"floor_s": None}, "time_over_floor was not measured"),
            ({"floor_s": None, "reason": "too many events"}, "too many events"),
        ],
    )
    def test_a_cell_without_a_number_is_not_measured_and_says_why(self, changes, note):
        rows = [a_row(**{"total_s": 1e-9, **changes})]
        (found,) = evaluations(rows, criterion())
        assert (found.outcome, found.value, found.note) == (CriterionOutcome.NOT_MEASURED, None, note)

    def test_a_cell_of_the_suite_without_a_row_is_named(self):
        found = evaluations([a_row()], criterion(), missing=[a_cell(gradient="aca")])
        assert [(one.name, one.note) for one in found if one.outcome is CriterionOutcome.NOT_MEASURED] == [
            ("ours aca", "it has no row yet")
        ]

    def test_a_fitted_peak_says_so(self):
        rows = [a_row(peak_tensor_source="fit")]
        assert [one.note for one in evaluations(rows, criterion(measure="memory_over_floor"))] == [
            "peak fitted to fewer steps"
        ]
        assert [one.note for one in evaluations(rows, criterion(measure="total_s"))] == [""]

    def test_a_ratio_to_a_floor_that_was_not_measured_says_that_the_floor_is_estimated(self):
        floor = a_row(a_cell(contender="floor"))
        own = criterion(cells={"contender": "ours"})
        assert [one.note for one in evaluations([a_row()], own)] == ["over an estimate of the floor"]
        assert [one.note for one in evaluations([a_row(), floor], own)] == [""]
        failed = replace(floor, status=Status.TIMEOUT)
        assert [one.note for one in evaluations([a_row(), failed], own)] == ["over an estimate of the floor"]


class TestOverAnother:
    OVER = criterion(
        cells={"contender": "ours", "gradient": "backprop"}, measure="total_s", over="torchdiffeq backprop"
    )

    def test_it_is_a_multiple_of_the_other_in_the_same_group(self):
        rows = [
            *group(),
            *[replace(row, total_s=row.total_s and row.total_s * 7) for row in group(rtol=1e-3, atol=1e-5)],
        ]
        found = evaluations(rows, self.OVER)
        assert [one.value for one in found] == [pytest.approx(1 / 1.3)] * 2
        assert found[0].name == "ours backprop over torchdiffeq backprop"

    @pytest.mark.parametrize(
        ("changes", "note"),
        [
            ({"status": Status.SKIPPED, "reason": "not installed"}, "torchdiffeq backprop: skipped: not installed"),
            ({"total_s": None}, "torchdiffeq backprop: total_s was not measured"),
        ],
    )
    def test_it_is_not_measured_without_the_other(self, changes, note):
        rows = [replace(row, **changes) if row.contender == "torchdiffeq" else row for row in group()]
        (found,) = evaluations(rows, self.OVER)
        assert (found.value, found.note) == (None, note)
        (found,) = evaluations([row for row in group() if row.contender == "ours"], self.OVER)
        assert found.note == "torchdiffeq backprop: it has no row yet"


class TestAlongAnAxis:
    PER_STEP = criterion(measure="peak_states", along="steps", change="per_unit")
    POWER = criterion(measure="total_s", along="steps", change="exponent")

    def test_a_difference_is_divided_by_that_of_the_axis(self):
        found = evaluations([fixed(40), fixed(10), fixed(20)], self.PER_STEP)
        assert [(one.name, one.value) for one in found] == [
            ("ours symplectic, steps 10 to 20", pytest.approx(3.0)),
            ("ours symplectic, steps 20 to 40", pytest.approx(3.0)),
        ]
        assert {one.group for one in found} == {"mlp batch 128, rk38, float64"}

    @pytest.mark.parametrize("power", [1.0, 2.0])
    def test_an_exponent_is_the_slope_of_logarithms(self, power):
        rows = [fixed(steps, total_s=1e-3 * steps**power) for steps in (10, 100, 500)]
        assert [one.value for one in evaluations(rows, self.POWER)] == [pytest.approx(power)] * 2

    def test_only_cells_that_differ_in_no_other_axis_are_compared(self):
        rows = [fixed(10), replace(fixed(20), batch=64)]
        found = evaluations(rows, self.POWER)
        assert [one.note for one in found] == ["there is only one value of steps at this scale"] * 2

    def test_a_size_is_an_axis_too(self):
        rows = [
            a_row(a_cell(sizes=(("outputs", n),)), total_s=5e-3 * n, peak_tensor_bytes=n, state_bytes=1)
            for n in (10, 100)
        ]
        one = criterion(measure="total_s", along="outputs", change="exponent")
        (found,) = evaluations(rows, one)
        assert (found.name, found.value) == ("ours symplectic, outputs 10 to 100", pytest.approx(1))

    def test_cells_of_two_methods_are_two_series_unless_the_axis_is_the_number_of_stages(self):
        def of(method, stages, outputs):
            cell = a_cell(sizes=(("outputs", outputs),), method=method)
            return a_row(cell, stages=stages, total_s=1e-3 * stages * outputs)

        along = {"measure": "total_s", "change": "exponent"}
        of_six_stages = [of(method, 6, n) for method in ("dopri5", "tsit5") for n in (10, 100)]
        by_outputs = evaluations(of_six_stages, criterion(along="outputs", **along))
        assert [(one.name, one.value) for one in by_outputs] == [
            ("ours symplectic, outputs 10 to 100", pytest.approx(1))
        ] * 2
        rows = [of(method, stages, n) for method, stages in (("dopri5", 6), ("bosh3", 3)) for n in (10, 100)]
        by_stages = evaluations(rows, criterion(along="stages", **along))
        assert [(one.name, one.value) for one in by_stages] == [
            ("ours symplectic, stages 3 to 6", pytest.approx(1))
        ] * 2

    def test_it_is_not_measured_without_one_of_the_two(self):
        rows = [fixed(10), fixed(20, status=Status.OOM, reason="killed")]
        (found,) = evaluations(rows, self.POWER)
        assert (found.value, found.note) == (None, "oom: killed")

    def test_cells_without_the_axis_are_not_compared(self):
        (found,) = evaluations(group([("ours", "aca")]), self.POWER)
        assert found.outcome is CriterionOutcome.NOT_MEASURED


class TestAllCells:
    def test_a_criterion_is_met_only_if_all_its_cells_meet_it(self):
        easy, hard = criterion(at_most=9), criterion(at_most=0.1)
        assert [result.outcome for result in results(group(), easy, hard)] == [
            CriterionOutcome.MET,
            CriterionOutcome.NOT_MET,
        ]
        (left,) = results(group(), easy, missing=[a_cell(seed=1)])
        assert left.outcome is CriterionOutcome.NOT_MEASURED


class TestDerivedColumns:
    def line(self, **changes):
        (line,) = lines_of(summarize([a_row(**changes)]))
        return line

    def test_every_measure_is_a_column(self):
        assert set(get_args(Measure)) <= set(summarize(first_look()).columns)

    @pytest.mark.parametrize(
        ("gradient", "method", "rtol", "calls"),
        [
            # N = 10 steps of s = 6 stages, R = 2 rejected. FSAL: forward 60 + 12 + 2.
            ("backprop", "dopri5", 1e-6, 74),
            ("aca", "dopri5", 1e-6, 74 + 60),
            ("stages", "dopri5", 1e-6, 74 + 60),
            ("baseline", "dopri5", 1e-6, 74 + 60),
            ("symplectic", "dopri5", 1e-6, 74 + 110 - 5),
            # Another method has k_1 of a rejected step at hand: 60 + 10 + 1.
            ("backprop", "dopri8", 1e-6, 71),
            # Fixed steps have no start: 60.
            ("backprop", "dopri5", None, 60),
        ],
    )
    def test_f_calls_are_held_against_the_formula(self, gradient, method, rtol, calls):
        accuracy = {"rtol": rtol, "atol": rtol, "steps": None if rtol else 10}
        cell = a_cell(gradient=gradient, method=method, **accuracy)
        rejected = 2 if rtol else 0
        row = a_row(
            cell, stages=6, steps_accepted=10, steps_rejected=rejected, f_calls_forward=calls, f_calls_backward=0
        )
        (line,) = lines_of(summarize([row]))
        assert line["f_calls_over_formula"] == 1

    @pytest.mark.parametrize(
        "changes",
        [{"steps_rejected": None}, {"gradient": "continuous"}, {"sizes": {"outputs": 5}}],
    )
    def test_where_no_formula_is_known_there_is_no_ratio(self, changes):
        assert self.line(**changes)["f_calls_over_formula"] is None

    def test_a_field_that_costs_nothing_is_no_yardstick(self):
        line = self.line(graph_bytes=0)
        assert (line["time_over_floor"], line["memory_over_floor"]) == (None, None)
        assert self.line(graph_bytes=1)["time_over_floor"] is not None

    def test_the_captured_floor_is_that_of_the_rows_own_calls(self):
        line = self.line(total_s=0.6, floor_captured_s=0.1)
        assert line["time_over_captured_floor"] == pytest.approx(6) and self.line()["time_over_captured_floor"] is None

    def test_times_a_call_and_peaks_in_states(self):
        line = self.line(forward_s=0.5, f_calls_forward=100, peak_tensor_bytes=300, state_bytes=100)
        assert (line["forward_per_call_s"], line["peak_states"]) == (0.005, 3)


@pytest.mark.parametrize("name", [name for name in suite_names() if load_suite(name).target])
def test_every_target_of_our_suites_selects_cells_of_its_suite(name):
    suite, vocabulary = load_suite(name), load_vocabulary()
    anything = Vocabulary(vocabulary.problems, vocabulary.methods, decline=lambda cell: None)
    cells: list[Cell] = expand(suite.at_scale(Scale.CPU), anything)
    names = {cell.name for cell in cells}
    for result in evaluate(suite.target, cells, []):
        notes = {one.note.removeprefix(f"{result.criterion.over}: ") for one in result.evaluations}
        assert notes == {"it has no row yet"}, result.criterion.name
        assert result.criterion.over is None or result.criterion.over in names


def test_cells_of_different_machines_are_not_compared():
    rows = [replace(row, environment=row.contender) for row in group()]
    found = evaluations(rows, criterion(measure="total_s", over="torchdiffeq backprop", at_most=10.0))
    assert {one.outcome for one in found} == {CriterionOutcome.NOT_MEASURED}
    assert all("different machines" in one.note for one in found)


class TestTimesInTurns:
    """Ratios of times are those of the rounds, with their limits."""

    def rows(self, rounds):
        ours = [1.0, 2.0, 4.0] * rounds
        theirs = [1.0, 1.0, 3.0] * rounds  # ratios 1, 2 and 4/3; of the medians 2
        found = []
        for contender, times in (("ours", ours), ("torchdiffeq", theirs)):
            row = a_row(a_cell(contender=contender, gradient="backprop"), total_s=sorted(times)[len(times) // 2])
            halves = [t / 2 for t in times]
            found.append(replace(row, forward_samples_s=halves, backward_samples_s=halves))
        return found

    @pytest.mark.parametrize("changes", [{"measure": "total_s", "over": "torchdiffeq backprop"}, {}])
    def test_a_ratio_to_another_is_the_median_of_the_rounds(self, changes):
        rows = self.rows(1)
        if not changes:  # the same ratio, of a floor
            rows[1] = replace(rows[1], **ids_of(replace(rows[1].cell, contender="floor")))
        (found,) = evaluations(rows, criterion(**changes))
        assert found.value == pytest.approx(4 / 3) and found.ratio is not None
        assert (found.ratio.low, found.ratio.high, found.ratio.rounds) == (1.0, 2.0, 3)
        assert not found.ratio.has_interval

    def test_many_rounds_have_an_interval(self):
        (found,) = evaluations(self.rows(4), criterion(measure="total_s", over="torchdiffeq backprop"))
        assert found.ratio is not None and found.ratio.has_interval

    def test_other_measures_have_no_limits(self):
        (found,) = evaluations(self.rows(4), criterion(measure="peak_tensor_bytes", over="torchdiffeq backprop"))
        assert found.value is not None and found.ratio is None


def ids_of(cell):
    return {"contender": cell.contender, "cell_id": cell.id, "group_id": cell.group_id}
