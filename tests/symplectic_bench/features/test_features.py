"""Probes tell a right gradient from a wrong one, and the committed tables are what the answers make."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from typer.testing import CliRunner

from symplectic_bench.commands.app import app
from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.features.answer import Answer, Lacks, Verdict, Wrong, expect, expect_stop, judge
from symplectic_bench.features.libraries import LIBRARIES
from symplectic_bench.features.library import Library
from symplectic_bench.features.probes import FAMILIES, PROBES
from symplectic_bench.features.survey import column, differences, from_json, lines_of
from symplectic_bench.features.worker import ask
from symplectic_bench.report.feature_tables import BEGIN, LOSSES, readme_block, with_block
from tests.clone import ROOT

RECORD = ROOT / "results" / "features" / "features.json"


@dataclass(frozen=True)
class Scaled(Library):
    """A library that solves the decay in closed form, with gradients off by a factor."""

    factor: float = 1.0

    def solve(self, func, y0, t, **asked):
        rate = func.rate * self.factor + (1 - self.factor) * func.rate.detach()
        return torch.stack([y0 * torch.exp(-rate * (one - t[0])) for one in t])


FAKE = Scaled("fake", "solve", "torch", "torch", "")


def test_a_right_library_says_yes_and_one_with_wrong_gradients_is_found():
    assert ask(FAKE, "parameters") == Answer(Verdict.YES)
    assert ask(replace(FAKE, factor=1.01), "parameters") == Answer(Verdict.WRONG, "off by 1e-02")


def test_what_a_library_lacks_is_no_and_what_it_raises_is_refused():
    assert ask(FAKE, "event") == Answer(Verdict.NO, "no events")
    assert ask(FAKE, "closure").verdict is Verdict.REFUSED
    assert ask(replace(FAKE, lacks={"parameters": "none"}), "parameters") == Answer(Verdict.NO, "none")


def test_a_missing_gradient_and_nan_are_wrong():
    for got in (None, float("nan"), [1.0, 2.0]):
        with pytest.raises(Wrong):
            expect(got, 1.0)


def test_an_error_that_is_asked_for_must_come():
    with pytest.raises(Wrong, match="no error"):
        expect_stop(lambda: None)
    with pytest.raises(Lacks):
        expect_stop(lambda: FAKE.event(None, None, None, lambda t, y: y))
    expect_stop(lambda: 1 / 0)


def test_an_exception_is_told_without_addresses_and_paths():
    def program():
        raise ValueError("object at 0x7f00 in /usr/lib/here/file.py\nmore")

    assert judge(program) == Answer(Verdict.REFUSED, "ValueError: object at 0x… in …/file.py")


def test_an_absent_library_says_how_to_install_it():
    absent = column(replace(FAKE, package="no_such_package", how="pip install it"))
    assert (absent.missing, absent.answers) == ("no_such_package is not installed: pip install it", {})


def test_a_process_that_dies_is_told(tmp_path):
    assert lines_of(["python", "-c", "print(1); import os; os._exit(7)"])[1] == "its process ended with code 7"


def test_differences_name_the_answer_that_changed():
    committed = from_json(RECORD.read_text())
    ours = committed["ours"]
    changed = replace(ours, answers={**ours.answers, "parameters": Answer(Verdict.WRONG, "off by 1e-02")})
    assert differences(committed, {"ours": ours}) == []
    assert differences(committed, {"ours": changed}) == ["ours parameters: yes committed, wrong (off by 1e-02) here"]


def test_every_question_is_asked_once_and_is_in_the_record():
    names = [probe.name for family in FAMILIES for probe in family.probes]
    assert len(names) == len(set(names)) == len(PROBES) >= 35
    record = json.loads(RECORD.read_text())
    assert {name for family in record["questions"].values() for name in family} == set(PROBES)
    assert set(from_json(RECORD.read_text())["ours"].answers) == set(PROBES)
    assert set(record["libraries"]) == set(LIBRARIES)


def test_the_table_of_readme_is_that_of_the_record():
    page = (ROOT / "README.md").read_text()
    block = readme_block(from_json(RECORD.read_text()))
    assert with_block(page, block) == page
    assert with_block(page.replace("| yes |", "| no |"), block) == page
    with pytest.raises(ValueError, match="once"):
        with_block(page.replace(BEGIN, ""), block)


def test_the_record_says_what_is_absent_here_and_present_elsewhere():
    columns = from_json(RECORD.read_text())
    assert all(columns["ours"].answers[name].verdict is not Verdict.YES for name in LOSSES)
    for elsewhere in ("torchode", "diffrax"):
        assert columns[elsewhere].answers["per_sample_steps"].verdict is Verdict.YES


def test_check_is_red_when_the_record_was_edited(tmp_path, monkeypatch):
    from symplectic_bench.features import survey

    record = json.loads(RECORD.read_text())
    answers = from_json(RECORD.read_text())["ours"].answers
    monkeypatch.setattr(survey, "answers", lambda name, probes: answers)
    record["libraries"]["ours"]["answers"]["vmap"] = {"verdict": "yes", "detail": ""}
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "features.json").write_text(json.dumps(record))
    arguments = ["features", "ours", "--check", "--results", str(tmp_path), "--readme", str(tmp_path / "none")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.REGRESSION and "ours vmap: yes committed" in result.output


def test_check_refuses_a_library_of_no_such_name():
    result = CliRunner().invoke(app, ["features", "torchdifeq"])
    assert result.exit_code == Exit.USAGE and "torchdiffeq" in result.output
