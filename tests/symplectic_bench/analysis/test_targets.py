from dataclasses import replace
from typing import Any, get_args

import pytest

from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.analysis.targets import headline, shortfalls
from symplectic_bench.analysis.trials import Outcome, judge
from symplectic_bench.report.tables import targets_table
from symplectic_bench.report.typesetting import to_csv, to_markdown
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Measure, Scale, Target, load_suite, suite_names
from tests.symplectic_bench.sample_rows import a_cell, a_row, first_look, group


def target(**changes):
    values: dict[str, Any] = {"point": 1, "name": "time over the floor", "cells": {"contender": "ours"}}
    return Target(**{**values, "measure": "time_over_floor", "at_most": 2.0, **changes})


def judged(rows, *targets, missing=()):
    cells = [*(row.cell for row in rows), *missing]
    return judge(targets, cells, lines_of(summarize(rows)))


def verdicts(rows, one, missing=()):
    (judgement,) = judged(rows, one, missing=missing)
    return judgement.verdicts


def fixed(steps, **changes):
    """Rows of the symplectic gradient that differ in the number of steps."""
    cell = a_cell(method="rk38", rtol=None, atol=None, steps=steps)
    return a_row(
        cell, **{"total_s": 2e-3 * steps, "peak_tensor_bytes": 1000 + 300 * steps, "state_bytes": 100, **changes}
    )


class TestOneCell:
    def test_a_cell_is_met_or_not_by_its_own_number(self):
        found = {v.cell: (round(v.measured or 0, 3), v.outcome) for v in verdicts(group(), target())}
        assert found["ours aca"] == (2.1, Outcome.NOT_MET)
        assert found["ours baseline"] == (2.0, Outcome.MET)  # at most, not below
        assert len(found) == 6

    def test_it_means_the_cells_that_have_every_axis_and_size_named(self):
        rows = [*group(), *group(sizes=(("layers", 2), ("state", 8), ("width", 16)))]
        chosen = target(cells={"contender": "ours", "gradient": ["aca", "stages"], "width": [16, 128]})
        assert [v.cell for v in verdicts(rows, chosen)] == ["ours aca", "ours stages"]
        assert {v.group for v in verdicts(rows, chosen)} == {
            "mlp(state=8, width=16) batch 128, dopri5 rtol 1e-06 atol 1e-08, float64"
        }

    def test_a_target_that_means_no_cell_is_open(self):
        (verdict,) = verdicts(group(), target(cells={"width": 7}))
        assert (verdict.outcome, verdict.note) == (Outcome.NOT_MEASURED, "the suite has no such cell at this scale")

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
    def test_without_a_number_it_is_open_and_says_why(self, changes, note):
        rows = [a_row(**{"total_s": 1e-9, **changes})]
        (verdict,) = verdicts(rows, target())
        assert (verdict.outcome, verdict.measured, verdict.note) == (Outcome.NOT_MEASURED, None, note)

    def test_a_cell_of_the_suite_without_a_row_is_named(self):
        found = verdicts([a_row()], target(), missing=[a_cell(gradient="aca")])
        assert [(v.cell, v.note) for v in found if v.outcome is Outcome.NOT_MEASURED] == [
            ("ours aca", "it has no row yet")
        ]

    def test_a_fitted_peak_says_so(self):
        rows = [a_row(peak_tensor_source="fit")]
        assert [v.note for v in verdicts(rows, target(measure="memory_over_floor"))] == ["peak fitted to fewer steps"]
        assert [v.note for v in verdicts(rows, target(measure="total_s"))] == [""]

    def test_a_floor_that_was_not_measured_is_said_to_be_an_estimate(self):
        floor = a_row(a_cell(contender="floor"))
        own = target(cells={"contender": "ours"})
        assert [v.note for v in verdicts([a_row()], own)] == ["over an estimate of the floor"]
        assert [v.note for v in verdicts([a_row(), floor], own)] == [""]
        failed = replace(floor, status=Status.TIMEOUT)
        assert [v.note for v in verdicts([a_row(), failed], own)] == ["over an estimate of the floor"]


class TestOverAnother:
    OVER = target(cells={"contender": "ours", "gradient": "backprop"}, measure="total_s", over="torchdiffeq backprop")

    def test_it_is_a_multiple_of_the_other_in_the_same_group(self):
        rows = [
            *group(),
            *[replace(row, total_s=row.total_s and row.total_s * 7) for row in group(rtol=1e-3, atol=1e-5)],
        ]
        found = verdicts(rows, self.OVER)
        assert [v.measured for v in found] == [pytest.approx(1 / 1.3)] * 2
        assert found[0].cell == "ours backprop over torchdiffeq backprop"

    @pytest.mark.parametrize(
        ("changes", "note"),
        [
            ({"status": Status.SKIPPED, "reason": "not installed"}, "torchdiffeq backprop: skipped: not installed"),
            ({"total_s": None}, "torchdiffeq backprop: total_s was not measured"),
        ],
    )
    def test_without_the_other_it_is_open(self, changes, note):
        rows = [replace(row, **changes) if row.contender == "torchdiffeq" else row for row in group()]
        (verdict,) = verdicts(rows, self.OVER)
        assert (verdict.measured, verdict.note) == (None, note)
        (verdict,) = verdicts([row for row in group() if row.contender == "ours"], self.OVER)
        assert verdict.note == "torchdiffeq backprop: it has no row yet"


class TestAlongAnAxis:
    PER_STEP = target(measure="peak_states", along="steps", change="per_unit")
    POWER = target(measure="total_s", along="steps", change="exponent")

    def test_a_difference_is_divided_by_the_axis_own(self):
        found = verdicts([fixed(40), fixed(10), fixed(20)], self.PER_STEP)
        assert [(v.cell, v.measured) for v in found] == [
            ("ours symplectic, steps 10 to 20", pytest.approx(3.0)),
            ("ours symplectic, steps 20 to 40", pytest.approx(3.0)),
        ]
        assert {v.group for v in found} == {"mlp batch 128, rk38, float64"}

    @pytest.mark.parametrize("power", [1.0, 2.0])
    def test_an_exponent_is_the_slope_of_logarithms(self, power):
        rows = [fixed(steps, total_s=1e-3 * steps**power) for steps in (10, 100, 500)]
        assert [v.measured for v in verdicts(rows, self.POWER)] == [pytest.approx(power)] * 2

    def test_only_cells_that_differ_in_nothing_else_are_compared(self):
        rows = [fixed(10), replace(fixed(20), batch=64)]
        found = verdicts(rows, self.POWER)
        assert [v.note for v in found] == ["there is only one value of steps at this scale"] * 2

    def test_a_size_is_an_axis_too(self):
        rows = [
            a_row(a_cell(sizes=(("outputs", n),)), total_s=5e-3 * n, peak_tensor_bytes=n, state_bytes=1)
            for n in (10, 100)
        ]
        one = target(measure="total_s", along="outputs", change="exponent")
        (verdict,) = verdicts(rows, one)
        assert (verdict.cell, verdict.measured) == ("ours symplectic, outputs 10 to 100", pytest.approx(1))

    def test_without_one_of_the_two_it_is_open(self):
        rows = [fixed(10), fixed(20, status=Status.OOM, reason="killed")]
        (verdict,) = verdicts(rows, self.POWER)
        assert (verdict.measured, verdict.note) == (None, "oom: killed")

    def test_cells_without_the_axis_are_not_compared(self):
        (verdict,) = verdicts(group([("ours", "aca")]), self.POWER)
        assert verdict.outcome is Outcome.NOT_MEASURED


class TestTheWhole:
    def test_a_target_is_met_only_where_all_its_cells_meet_it(self):
        easy, hard = target(at_most=9), target(at_most=0.1)
        assert [j.outcome for j in judged(group(), easy, hard)] == [Outcome.MET, Outcome.NOT_MET]
        (left,) = judged(group(), easy, missing=[a_cell(seed=1)])
        assert left.outcome is Outcome.NOT_MEASURED

    def test_the_headline_has_the_worst_and_how_many_meet_it(self):
        (judgement,) = judged(group(), target())
        assert headline(judgement) == "1. time over the floor: at most 2; worst 3.4, met in 2 of 6"
        (judgement,) = judged([], target(), missing=[a_cell()])
        assert headline(judgement) == "1. time over the floor: at most 2; met in 0 of 1"

    def test_shortfalls_are_the_cells_that_miss_and_the_reasons_of_the_others(self):
        few = {"contender": "ours", "gradient": ["aca", "backprop", "stages", "symplectic"]}
        changes = {
            "backprop": {"status": Status.SKIPPED, "reason": "r"},
            "symplectic": {"status": Status.SKIPPED, "reason": "r"},
        }
        rows = [replace(row, **changes.get(row.gradient, {})) for row in group()]
        (judgement,) = judged(rows, target(cells=few))
        label = "mlp batch 128, dopri5 rtol 1e-06 atol 1e-08, float64"
        assert shortfalls(judgement) == [
            f"2.1: {label}: ours aca (over an estimate of the floor)",
            f"2.2: {label}: ours stages (over an estimate of the floor)",
            "not measured (2): skipped: r",
        ]

    def test_the_table_has_a_section_a_target_and_a_line_a_cell(self):
        table = targets_table(judged(group(), target(), target(at_most=9, name="other")), "Measured here.")
        assert [section.heading for section in table.sections] == [
            "1. time over the floor: at most 2; worst 3.4, met in 2 of 6: not met",
            "1. other: at most 9; worst 3.4, met in 6 of 6: met",
        ]
        assert [len(section.lines) for section in table.sections] == [6, 6]
        assert "| ours aca | 2.10 | at most 2 | not met | over an estimate of the floor |" in to_markdown(table)
        assert to_csv(table).splitlines()[0] == "point,target,group,cell,measured,wanted,outcome,note"


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

    def test_times_a_call_and_peaks_in_states(self):
        line = self.line(forward_s=0.5, f_calls_forward=100, peak_tensor_bytes=300, state_bytes=100)
        assert (line["forward_per_call_s"], line["peak_states"]) == (0.005, 3)


@pytest.mark.parametrize("name", [name for name in suite_names() if load_suite(name).target])
def test_every_target_of_ours_means_cells_of_its_suite(name):
    suite, vocabulary = load_suite(name), load_vocabulary()
    anything = Vocabulary(vocabulary.problems, vocabulary.methods, decline=lambda cell: None)
    cells: list[Cell] = expand(suite.at_scale(Scale.CPU), anything)
    names = {cell.name for cell in cells}
    for judgement in judge(suite.target, cells, []):
        notes = {verdict.note.removeprefix(f"{judgement.trial.over}: ") for verdict in judgement.verdicts}
        assert notes == {"it has no row yet"}, judgement.trial.name
        assert judgement.trial.over is None or judgement.trial.over in names


def test_cells_of_different_machines_are_not_compared():
    rows = [replace(row, environment=row.contender) for row in group()]
    found = verdicts(rows, target(measure="total_s", over="torchdiffeq backprop", at_most=10.0))
    assert {verdict.outcome for verdict in found} == {Outcome.NOT_MEASURED}
    assert all("different machines" in verdict.note for verdict in found)
