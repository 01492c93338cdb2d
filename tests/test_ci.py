"""CI's jobs and the minutes that each may take: tox.ini, .ci/run and the workflows agree."""

import configparser
import re

import pytest

from tests.clone import ROOT
from toxfile import Budgets

MOST_MINUTES = 22
"""The limit for all of CI on two cores; past 25 it is in everyone's way."""


@pytest.fixture(scope="module")
def tox():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini", encoding="utf-8")
    return config


def main_job(tox):
    return re.split(r",\s*", tox["tox"]["env_list"])


def test_ci_runs_the_environments_of_the_list(tox):
    (run,) = re.findall(r"tox run -e (\S+)", (ROOT / ".ci" / "run").read_text())
    assert run.split(",") == main_job(tox)


def test_each_job_has_a_budget_and_all_fit_in_that_of_ci(tox):
    budgets = [tox[f"testenv:{name}"].getfloat("budget_minutes") for name in main_job(tox)]
    assert all(budgets) and sum(budgets) <= MOST_MINUTES


def test_a_workflow_names_no_environment_that_there_is_not(tox):
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = file.read_text(encoding="utf-8")
        named = re.findall(r"tox run -e ([\w,-]+)", text) + re.findall(r"environment: \[(.*)\]", text)
        assert named or "tox" not in text
        for name in re.split(r",\s*", ",".join(named)):
            assert f"testenv:{name}" in tox


def test_a_budget_says_what_was_taken_and_where_it_was_too_much():
    budgets = Budgets()
    begin = budgets.end
    assert budgets.line("lint", 1.0, begin + 45) == "lint: 0.8 of 1.0 min (so far 0.8 of 1.0)"
    assert budgets.line("test", 2.0, begin + 225) == "test: OVER ITS BUDGET: 3.0 of 2.0 min (so far 3.8 of 3.0)"
