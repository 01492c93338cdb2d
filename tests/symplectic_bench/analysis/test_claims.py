"""Claims on trial, on rows made by hand: what is ruled, where a claim holds, and what is shown of it."""

from dataclasses import replace
from typing import Any

import pytest

from symplectic_bench.analysis.claims import Ruling, exponents, hear, rule, when
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.analysis.trials import Outcome
from symplectic_bench.report.claim_tables import claim_tables
from symplectic_bench.report.figures import all_figures
from symplectic_bench.report.render import draw
from symplectic_bench.report.typesetting import to_csv, to_markdown
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Claim, Scale, Trial, load_suite, suite_names
from tests.symplectic_bench.sample_rows import a_cell, a_row

SIZES = (("components", 2), ("layers", 2))


def trial(**changes: Any) -> Trial:
    values: dict[str, Any] = {"name": "error", "cells": {"contender": "ours"}, "measure": "error_discrete"}
    wanted = {} if {"at_least", "powers"} & set(changes) else {"at_most": 1e-12}
    return Trial(**{**values, **wanted, **changes})


def heard(rows, *trials, cells=()):
    claim = Claim(point=1, name="it is exact", trial=list(trials))
    cells = [*(row.cell for row in rows), *cells]
    (hearing,) = hear([claim], cells, lines_of(summarize(rows)))
    return hearing


def fixed(steps, sizes=SIZES, method="rk38", **changes):
    cell = a_cell(problem="stack", sizes=sizes, method=method, rtol=None, atol=None, steps=steps)
    return a_row(cell, **changes)


def wrong(row):
    return replace(row, error_discrete=1e-3)


class TestRulings:
    def test_a_trial_holds_fails_or_holds_when_by_its_cells(self):
        rows = [fixed(n) for n in (10, 20, 40)]
        (judgement,) = heard(rows, trial()).judgements
        assert (rule(judgement), when(judgement)) == (Ruling.HOLDS, "")
        (judgement,) = heard([wrong(row) for row in rows], trial()).judgements
        assert (rule(judgement), when(judgement)) == (Ruling.FAILS, "")
        (judgement,) = heard([rows[0], rows[1], wrong(rows[2])], trial()).judgements
        assert (rule(judgement), when(judgement)) == (Ruling.HOLDS_WHEN, "steps <= 20")

    def test_what_was_not_measured_has_no_voice(self):
        rows = [fixed(10), wrong(fixed(20, status=Status.TIMEOUT))]
        (judgement,) = heard(rows, trial()).judgements
        assert rule(judgement) is Ruling.HOLDS and judgement.count(Outcome.NOT_MEASURED) == 1
        assert heard([], trial(), cells=[a_cell()]).ruling is Ruling.OPEN

    def test_a_claim_holds_where_all_its_trials_do(self):
        rows = [fixed(10)]
        assert heard(rows, trial(), trial(at_most=1.0)).ruling is Ruling.HOLDS
        assert heard(rows, trial(at_most=1e-30), trial(at_most=1e-20)).ruling is Ruling.FAILS
        assert heard(rows, trial(), trial(at_most=1e-30)).ruling is Ruling.HOLDS_WHEN
        assert heard(rows, trial(), trial(cells={"contender": "paper"})).ruling is Ruling.HOLDS

    def test_at_least_is_the_other_way_round(self):
        assert heard([fixed(10)], trial(at_least=1e-12)).ruling is Ruling.FAILS
        assert heard([wrong(fixed(10))], trial(at_least=1e-12)).ruling is Ruling.HOLDS


class TestWhen:
    def condition(self, met, missed):
        (judgement,) = heard([*met, *map(wrong, missed)], trial()).judgements
        return when(judgement)

    def test_a_number_that_tells_is_named_with_its_bound(self):
        assert self.condition([fixed(40), fixed(80)], [fixed(10)]) == "steps >= 40"
        layers = [fixed(10, sizes=(("components", 2), ("layers", n))) for n in (1, 2, 4)]
        assert self.condition(layers[1:], layers[:1]) == "layers >= 2"

    def test_a_number_that_does_not_tell_by_a_bound_is_listed(self):
        assert self.condition([fixed(10), fixed(40)], [fixed(20)]) == "steps 10, 40"

    def test_a_word_is_listed(self):
        assert self.condition([fixed(10), fixed(20)], [fixed(10, method="euler"), fixed(20, method="euler")]) == (
            "method rk38"
        )

    def test_else_the_fewer_cells_are_named(self):
        met = [fixed(10), fixed(20, method="euler"), fixed(20)]
        assert self.condition(met, [fixed(10, method="euler")]) == (
            "not in stack(components=2, layers=2) batch 128, euler 10 steps, float64".replace(
                "components=2, layers=2", ""
            ).replace("()", "")
        )


class TestPowers:
    POWERS = trial(measure="peak_tensor_bytes", powers={"steps": 1, "components": 0}, within=0.2)

    def rows(self):
        over_steps = [fixed(n, peak_tensor_bytes=1000 * n) for n in (10, 20, 40)]
        sizes = [(("components", m), ("layers", 2)) for m in (1, 4)]
        return [*over_steps, *(fixed(20, sizes=s, peak_tensor_bytes=20_000 * s[0][1]) for s in sizes)]

    def test_each_axis_has_an_exponent_of_its_own(self):
        (judgement,) = heard(self.rows(), self.POWERS).judgements
        found = {verdict.axis: (round(verdict.measured or 0, 3), verdict.outcome) for verdict in judgement.verdicts}
        assert found == {"steps": (1.0, Outcome.MET), "components": (pytest.approx(1, abs=0.5), Outcome.NOT_MET)}
        assert (rule(judgement), when(judgement)) == (Ruling.HOLDS_WHEN, "not along components")

    def test_stages_are_the_methods(self):
        rows = [
            fixed(10, method=m, stages=s, peak_tensor_bytes=100 * s**2)
            for m, s in (("euler", 1), ("rk4", 4), ("bosh3", 3))
        ]
        (judgement,) = heard(rows, trial(measure="peak_tensor_bytes", powers={"stages": 2}, within=0.1)).judgements
        (verdict,) = judgement.verdicts
        assert (verdict.measured, verdict.outcome) == (pytest.approx(2.0), Outcome.MET)
        assert len(verdict.cells) == 3

    @pytest.mark.parametrize("steps", [(10,), (10, 20)])
    def test_two_values_are_too_few(self, steps):
        (judgement,) = heard([fixed(n) for n in steps], trial(powers={"steps": 1}, within=0.1)).judgements
        (verdict,) = judgement.verdicts
        assert verdict.note == "an exponent takes 3 values of steps, and there are fewer at this scale"

    def test_nothing_is_no_power(self):
        rows = [fixed(n, kept_tensor_bytes=0) for n in (10, 20, 40)]
        (judgement,) = heard(rows, trial(measure="kept_tensor_bytes", powers={"steps": 0}, within=0.1)).judgements
        (verdict,) = judgement.verdicts
        assert verdict.note == "kept_tensor_bytes is 0 there, which is no power of anything"


class TestTables:
    def tables(self):
        rows = TestPowers().rows()
        hearing = heard(rows, trial(), TestPowers.POWERS, trial(cells={"contender": "paper"}, name="theirs"))
        cells, lines = [row.cell for row in rows], lines_of(summarize(rows))
        found = exponents([hearing], cells, lines)
        return {table.name: table for table in claim_tables([hearing], found, "Measured here.")}

    def test_a_claim_is_a_line_with_its_ruling_and_every_cell_behind_it(self):
        table = self.tables()["claims"]
        (line,) = table.sections[0].lines
        assert line[:3] == ("1", "it is exact", "holds when")
        assert "error: holds; error: holds when not along components; theirs: not measured" in line
        (data,) = table.data
        assert set(data["cells"].split()) == {row.cell.id for row in TestPowers().rows()}

    def test_a_trial_is_a_line_with_its_figures(self):
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
        assert [section.heading for section in table.sections] == ["peak of tensors"]
        assert table.sections[0].lines[0][:2] == ("ours symplectic", "1.00 ± 0.00")

    def test_they_are_drawn_with_their_intervals(self):
        rows = TestPowers().rows()
        hearing, lines = heard(rows, TestPowers.POWERS), lines_of(summarize(rows))
        found = exponents([hearing], [row.cell for row in rows], lines)
        figure, *_ = all_figures(summarize(rows), "", found)
        ((panel,),) = figure.rows
        assert (figure.name, panel.x.names) == ("exponents", ("steps", "components"))
        (series,) = panel.series
        assert series.y == tuple(line["exponent"] for line in found) and len(series.doubt) == 2
        assert len(draw(figure).axes[0].collections) == 1  # the bars

    def test_a_suite_without_claims_has_none(self):
        assert claim_tables([], [], "") == []


SUITES = [name for name in suite_names() if load_suite(name).claim]


def cells_of(suite, vocabulary: Vocabulary) -> list[Cell]:
    return expand(suite, replace(vocabulary, decline=lambda cell: None))


@pytest.mark.parametrize("name", SUITES)
def test_every_trial_of_a_suite_means_cells_that_it_has_and_compares_with_ones_in_their_groups(name):
    """At the suite's own size: a trial that no cell can stand would be open for ever."""
    suite = load_suite(name).at_scale(Scale.CPU)
    cells = cells_of(suite, load_vocabulary())
    for hearing in hear(suite.claim, cells, []):
        for judgement in hearing.judgements:
            about = f"{hearing.claim.name}: {judgement.trial.name}"
            if judgement.trial.powers is not None and "stages" in judgement.trial.powers:
                continue  # only rows have them
            for verdict in judgement.verdicts:
                assert verdict.cells, about
                assert "fewer" not in verdict.note, about
            if judgement.trial.over is not None:
                names = {(cell.group_id, cell.name) for cell in cells}
                compared = [
                    (verdict.cells[0].group_id, judgement.trial.over) in names for verdict in judgement.verdicts
                ]
                assert any(compared), about


def test_claims_and_defects_are_such_suites():
    assert SUITES == ["claims", "defects"]
