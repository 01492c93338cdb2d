"""Claims and targets on rows made by hand: the outcome, the condition, and how both are shown."""

from dataclasses import replace
from typing import Any

import pytest

from symplectic_bench.analysis.claims import (
    ClaimOutcome,
    condition,
    evaluate_claims,
    shortfalls,
    support,
    support_text,
    target_headline,
)
from symplectic_bench.analysis.criteria import CriterionOutcome, evaluate
from symplectic_bench.analysis.exponents import exponents
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.report.claim_tables import claim_tables
from symplectic_bench.report.figures import all_figures
from symplectic_bench.report.render import draw
from symplectic_bench.report.tables import targets_table
from symplectic_bench.report.typesetting import to_csv, to_markdown
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.criteria import Claim, Criterion, Target
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale, load_suite, suite_names
from tests.symplectic_bench.sample_rows import a_cell, a_row, group

SIZES = (("components", 2), ("layers", 2))


def criterion(**changes: Any) -> Criterion:
    values: dict[str, Any] = {"name": "error", "cells": {"contender": "ours"}, "measure": "error_discrete"}
    wanted = {} if {"at_least", "powers"} & set(changes) else {"at_most": 1e-12}
    return Criterion(**{**values, **wanted, **changes})


def evaluated(rows, *criteria, cells=()):
    claim = Claim(point=1, name="it is exact", criterion=list(criteria))
    cells = [*(row.cell for row in rows), *cells]
    (result,) = evaluate_claims([claim], cells, lines_of(summarize(rows)))
    return result


def fixed(steps, sizes=SIZES, method="rk38", **changes):
    cell = a_cell(problem="stack", sizes=sizes, method=method, rtol=None, atol=None, steps=steps)
    return a_row(cell, **changes)


def wrong(row):
    return replace(row, error_discrete=1e-3)


class TestOutcomes:
    def test_a_criterion_holds_fails_or_holds_when_by_its_cells(self):
        rows = [fixed(n) for n in (10, 20, 40)]
        (result,) = evaluated(rows, criterion()).criteria
        assert (support(result), condition(result), support_text(result)) == (ClaimOutcome.HOLDS, "", "holds")
        (result,) = evaluated([wrong(row) for row in rows], criterion()).criteria
        assert (support(result), condition(result)) == (ClaimOutcome.FAILS, "")
        (result,) = evaluated([rows[0], rows[1], wrong(rows[2])], criterion()).criteria
        assert (support(result), condition(result)) == (ClaimOutcome.HOLDS_WHEN, "steps <= 20")
        assert support_text(result) == "holds when steps <= 20"

    def test_cells_that_were_not_measured_do_not_count(self):
        rows = [fixed(10), wrong(fixed(20, status=Status.TIMEOUT))]
        (result,) = evaluated(rows, criterion()).criteria
        assert support(result) is ClaimOutcome.HOLDS and len(result.having(CriterionOutcome.NOT_MEASURED)) == 1
        assert evaluated([], criterion(), cells=[a_cell()]).outcome is ClaimOutcome.NOT_MEASURED

    def test_a_claim_holds_if_all_its_criteria_do(self):
        rows = [fixed(10)]
        assert evaluated(rows, criterion(), criterion(at_most=1.0)).outcome is ClaimOutcome.HOLDS
        assert evaluated(rows, criterion(at_most=1e-30), criterion(at_most=1e-20)).outcome is ClaimOutcome.FAILS
        assert evaluated(rows, criterion(), criterion(at_most=1e-30)).outcome is ClaimOutcome.HOLDS_WHEN
        assert evaluated(rows, criterion(), criterion(cells={"contender": "paper"})).outcome is ClaimOutcome.HOLDS

    def test_at_least_is_the_opposite_limit(self):
        assert evaluated([fixed(10)], criterion(at_least=1e-12)).outcome is ClaimOutcome.FAILS
        assert evaluated([wrong(fixed(10))], criterion(at_least=1e-12)).outcome is ClaimOutcome.HOLDS


class TestConditions:
    def condition(self, met, missed):
        (result,) = evaluated([*met, *map(wrong, missed)], criterion()).criteria
        return condition(result)

    def test_a_number_that_separates_the_cells_is_named_with_its_bound(self):
        assert self.condition([fixed(40), fixed(80)], [fixed(10)]) == "steps >= 40"
        layers = [fixed(10, sizes=(("components", 2), ("layers", n))) for n in (1, 2, 4)]
        assert self.condition(layers[1:], layers[:1]) == "layers >= 2"

    def test_a_number_that_no_bound_separates_is_listed(self):
        assert self.condition([fixed(10), fixed(40)], [fixed(20)]) == "steps 10, 40"

    def test_numbers_are_listed_if_the_others_have_none(self):
        adaptive = a_row(a_cell(problem="stack", sizes=SIZES, method="rk38"))
        assert self.condition([fixed(40), fixed(80)], [adaptive]) == "steps 40, 80"
        assert self.condition([adaptive], [fixed(40), fixed(80)]) == "rtol 1e-06"

    def test_a_bound_may_be_the_largest(self):
        assert self.condition([fixed(10), fixed(20)], [fixed(40)]) == "steps <= 20"

    def test_a_word_is_listed(self):
        assert self.condition([fixed(10), fixed(20)], [fixed(10, method="euler"), fixed(20, method="euler")]) == (
            "method rk38"
        )

    def test_otherwise_the_fewer_cells_are_named(self):
        met = [fixed(10), fixed(20, method="euler"), fixed(20)]
        assert self.condition(met, [fixed(10, method="euler")]) == (
            "not in stack(components=2, layers=2) batch 128, euler 10 steps, float64".replace(
                "components=2, layers=2", ""
            ).replace("()", "")
        )

    def test_of_as_many_cells_on_both_sides_or_fewer_those_that_meet_the_limit_are_named(self):
        met, missed = [fixed(10), fixed(20, method="euler")], [fixed(20), fixed(10, method="euler")]
        assert (
            self.condition(met, missed)
            == "in stack batch 128, rk38 10 steps, float64; stack batch 128, euler 20 steps, float64"
        )
        few = [fixed(10), fixed(20, method="euler")]
        many = [*missed, fixed(40), fixed(10, method="rk4"), fixed(20, method="rk4")]
        assert self.condition(few, many).startswith("in ")

    def test_a_group_that_is_named_for_a_part_of_its_cells_says_how_many(self):
        both = [fixed(10), fixed(20), fixed(20, method="euler")]
        of_another_seed = a_row(replace(both[0].cell, seed=1))
        named = self.condition(both, [of_another_seed, fixed(10, method="euler")])
        assert named.startswith("not in ") and named.count(" (") == named.count(" (1 of 2)") == 1

    def test_of_more_than_two_groups_two_are_named(self):
        met = [fixed(n, method=method) for n in (10, 20, 40, 80) for method in ("rk38", "euler")]
        missed = [fixed(n, method=method) for n, method in ((10, "rk4"), (20, "rk4"), (40, "rk4"), (80, "euler"))]
        met = [row for row in met if row.cell != missed[-1].cell] + [fixed(80, method="rk4")]
        named = self.condition(met, missed)
        assert named.count(";") == 1 and named.endswith(" and 2 more")


class TestPowers:
    POWERS = criterion(measure="peak_tensor_bytes", powers={"steps": 1, "components": 0}, within=0.2)

    def rows(self):
        over_steps = [fixed(n, peak_tensor_bytes=1000 * n) for n in (10, 20, 40)]
        sizes = [(("components", m), ("layers", 2)) for m in (1, 4)]
        return [*over_steps, *(fixed(20, sizes=s, peak_tensor_bytes=20_000 * s[0][1]) for s in sizes)]

    def test_each_axis_has_an_exponent_of_its_own(self):
        (result,) = evaluated(self.rows(), self.POWERS).criteria
        found = {one.axis: (round(one.value or 0, 3), one.outcome) for one in result.evaluations}
        assert found == {
            "steps": (1.0, CriterionOutcome.MET),
            "components": (pytest.approx(1, abs=0.5), CriterionOutcome.NOT_MET),
        }
        assert (support(result), condition(result)) == (ClaimOutcome.HOLDS_WHEN, "not along components")

    def test_the_number_of_stages_is_that_of_the_method(self):
        rows = [
            fixed(10, method=m, stages=s, peak_tensor_bytes=100 * s**2)
            for m, s in (("euler", 1), ("rk4", 4), ("bosh3", 3))
        ]
        (result,) = evaluated(rows, criterion(measure="peak_tensor_bytes", powers={"stages": 2}, within=0.1)).criteria
        (evaluation,) = result.evaluations
        assert (evaluation.value, evaluation.outcome) == (pytest.approx(2.0), CriterionOutcome.MET)
        assert len(evaluation.cells) == 3

    @pytest.mark.parametrize("steps", [(10,), (10, 20)])
    def test_two_values_are_too_few(self, steps):
        (result,) = evaluated([fixed(n) for n in steps], criterion(powers={"steps": 1}, within=0.1)).criteria
        (evaluation,) = result.evaluations
        assert evaluation.note == "an exponent needs 3 values of steps, and there are fewer at this scale"

    def test_a_value_of_zero_has_no_exponent(self):
        rows = [fixed(n, kept_tensor_bytes=0) for n in (10, 20, 40)]
        (result,) = evaluated(rows, criterion(measure="kept_tensor_bytes", powers={"steps": 0}, within=0.1)).criteria
        (evaluation,) = result.evaluations
        assert evaluation.note == "kept_tensor_bytes is 0 here, and an exponent needs positive values"


class TestTables:
    def tables(self):
        rows = TestPowers().rows()
        result = evaluated(rows, criterion(), TestPowers.POWERS, criterion(cells={"contender": "paper"}, name="theirs"))
        cells, lines = [row.cell for row in rows], lines_of(summarize(rows))
        found = exponents([result], cells, lines)
        return {table.name: table for table in claim_tables([result], found, "Measured here.")}

    def test_a_claim_is_a_line_with_its_outcome_and_every_cell_behind_it(self):
        table = self.tables()["claims"]
        (line,) = table.sections[0].lines
        assert line[:3] == ("1", "it is exact", "holds when")
        assert "error: holds; error: holds when not along components; theirs: not measured" in line
        (data,) = table.data
        assert set(data["cells"].split()) == {row.cell.id for row in TestPowers().rows()}

    def test_a_criterion_is_a_line_with_its_values(self):
        markdown = to_markdown(self.tables()["trials"])
        assert "## 1. it is exact: holds when" in markdown
        assert "| error | 3.00e-16 | at most 1e-12 | 5 of 5 | holds |" in markdown
        assert "steps 1.00 ± 0.00" in markdown
        assert "the suite has no such cell at this scale" in markdown
        assert to_csv(self.tables()["trials"]).startswith(
            "point,claim,trial,measured,least,largest,wanted,met,ruling,cells"
        )

    def test_exponents_are_a_table_of_their_own(self):
        table = self.tables()["exponents"]
        assert table.headings == ("gradient", "steps", "components")
        assert [section.heading for section in table.sections] == ["peak tensor memory"]
        assert table.sections[0].lines[0][:2] == ("ours symplectic", "1.00 ± 0.00")

    def test_exponents_of_four_points_are_drawn_with_their_intervals_and_the_predicted_ones(self):
        rows = [*TestPowers().rows(), fixed(80, peak_tensor_bytes=80_000)]
        result, lines = evaluated(rows, TestPowers.POWERS), lines_of(summarize(rows))
        found = exponents([result], [row.cell for row in rows], lines)
        figure, *_ = all_figures(summarize(rows), "", found)
        ((panel,),) = figure.rows
        assert (figure.name, panel.x.names) == ("exponents", ("steps",)), "components have three values only"
        fitted, predicted = panel.series
        assert fitted.y == (found[0]["exponent"],) and len(fitted.doubt) == 1
        assert (predicted.x, predicted.y) == (fitted.x, (1,))
        assert str(panel.headline) == "1 of 1 exponents as predicted"
        assert len(draw(figure).axes[0].collections) == 1  # the bars

    def test_exponents_of_three_points_are_not_drawn(self):
        rows = TestPowers().rows()
        found = exponents([evaluated(rows, TestPowers.POWERS)], [row.cell for row in rows], lines_of(summarize(rows)))
        assert "exponents" not in [figure.name for figure in all_figures(summarize(rows), "", found)]

    def test_a_suite_without_claims_has_no_tables_of_them(self):
        assert claim_tables([], [], "") == []


def target(**changes) -> Target:
    values: dict[str, Any] = {"point": 1, "name": "time over the floor", "cells": {"contender": "ours"}}
    return Target(**{**values, "measure": "time_over_floor", "at_most": 2.0, **changes})


def targets(rows, *chosen, missing=()):
    cells = [*(row.cell for row in rows), *missing]
    return evaluate_claims([target.claim for target in chosen], cells, lines_of(summarize(rows)))


class TestTargets:
    def test_the_headline_has_the_worst_and_how_many_meet_it(self):
        (result,) = targets(group(), target())
        assert target_headline(result) == "1. time over the floor: at most 2; worst 3.4, met in 2 of 6"
        (result,) = targets([], target(), missing=[a_cell()])
        assert target_headline(result) == "1. time over the floor: at most 2; met in 0 of 1"

    def test_shortfalls_are_the_cells_that_miss_and_the_reasons_of_the_others(self):
        few = {"contender": "ours", "gradient": ["aca", "backprop", "stages", "symplectic"]}
        changes = {
            "backprop": {"status": Status.SKIPPED, "reason": "r"},
            "symplectic": {"status": Status.SKIPPED, "reason": "r"},
        }
        rows = [replace(row, **changes.get(row.gradient, {})) for row in group()]
        (result,) = targets(rows, target(cells=few))
        label = "mlp batch 128, dopri5 rtol 1e-06 atol 1e-08, float64"
        assert shortfalls(*result.criteria) == [
            f"2.1: {label}: ours aca (over an estimate of the floor)",
            f"2.2: {label}: ours stages (over an estimate of the floor)",
            "not measured (2): skipped: r",
        ]

    def test_the_table_has_a_section_a_target_and_a_line_a_cell(self):
        table = targets_table(targets(group(), target(), target(at_most=9, name="other")), "Measured here.")
        assert [section.heading for section in table.sections] == [
            "1. time over the floor: at most 2; worst 3.4, met in 2 of 6: not met",
            "1. other: at most 9; worst 3.4, met in 6 of 6: met",
        ]
        assert [len(section.lines) for section in table.sections] == [6, 6]
        assert "| ours aca | 2.10 | at most 2 | not met | over an estimate of the floor |" in to_markdown(table)
        assert to_csv(table).splitlines()[0] == (
            "point,target,group,cell,measured,wanted,measured_low,measured_high,measured_rounds,outcome,note"
        )


SUITES = [name for name in suite_names() if load_suite(name).claim]


def cells_of(suite, vocabulary: Vocabulary) -> list[Cell]:
    return expand(suite, replace(vocabulary, decline=lambda cell: None))


@pytest.mark.parametrize("name", SUITES)
def test_every_criterion_of_a_suite_selects_cells_that_it_has_and_compares_with_ones_in_their_groups(name):
    """At the suite's own size, or on the device it names: a criterion that selects no cell would never be measured."""
    at = {scale: cells_of(load_suite(name).at_scale(scale), load_vocabulary()) for scale in (Scale.CPU, Scale.GPU)}
    for claim in load_suite(name).claim:
        for criterion in claim.criterion:
            cells = at[Scale.GPU if criterion.cells.get("device") == ["cuda"] else Scale.CPU]
            (result,) = evaluate([criterion], cells, [])
            about = f"{claim.name}: {result.criterion.name}"
            if result.criterion.powers is not None and "stages" in result.criterion.powers:
                continue  # only rows have them
            for evaluation in result.evaluations:
                assert evaluation.cells, about
                assert "fewer" not in evaluation.note, about
            if result.criterion.over is not None:
                names = {(cell.group_id, cell.name) for cell in cells}
                assert any((one.cells[0].group_id, result.criterion.over) in names for one in result.evaluations), about


def test_the_suites_with_claims_are_the_papers_its_neighbours_and_the_defects():
    assert [name for name in SUITES if not name.startswith("claims-")] == ["claims", "defects"]
