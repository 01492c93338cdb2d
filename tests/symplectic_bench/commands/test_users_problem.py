"""A user's own problem through the commands, measured for real."""

import json

import pytest

from symplectic_bench.spec.suite import SUITES
from tests.symplectic_bench.users_project import PROBLEM, UsersProject

SUITE = """
title = "Mine"
description = "For tests."
max_cells = 20
budget_s = 100
cell_timeout_s = 60
repeats = 1

[[block]]
problem = [{ name = "mine.my-fields:pendulum", width = 3 }, { name = "mine.my-fields:pendulum", width = 5 }]
batch = 2
dtype = "float32"
method = "dopri5"
rtol = 1e-3
contenders = { ours = "symplectic", torchdiffeq = "backprop" }
"""


@pytest.fixture
def project(tmp_path):
    project = UsersProject(tmp_path)
    project.write("My Suite.toml", SUITE)
    return project


def test_a_suite_file_sweeps_its_sizes_and_resumes_until_the_code_changes(project):
    rows = lambda: sorted(project.folder.glob("results/my-suite/*/rows.jsonl"))  # noqa: E731
    assert project("run", "My Suite.toml") == 0, project.output
    (first,) = rows()
    found = [json.loads(line) for line in first.read_text().splitlines()]
    assert [(row["status"], row["sizes"]["width"]) for row in found] == [("ok", w) for w in (3, 3, 5, 5)]
    assert all(row["error_true"] < 0.1 and row["error_true_bar"] < 1e-6 for row in found)
    assert all(row["error_discrete"] < 1e-4 for row in found if row["contender"] == "ours")  # rounding of float32
    page = (project.folder / "results/my-suite/README.md").read_text()
    assert "`symplectic-bench report My Suite.toml`" in page and "mine.my-fields:pendulum with source" in page
    assert (project.folder / "plots/my-suite/memory-time.svg").is_file()

    assert project("run", "My Suite.toml") == 0 and "0 of 4 cells to measure" in project.output  # and draws again
    assert project("check", "My Suite.toml", "--update") == 0, project.output
    project.write("helpers/scale.py", "SCALE = 3.0\n")
    assert project("check", "My Suite.toml") == 4 and "run the suite first" in project.output
    assert project("run", "My Suite.toml", "--only", "width=3") == 0 and "2 of 2 cells" in project.output
    (second,) = set(rows()) - {first}
    losses = [json.loads(line)["loss"] for line in second.read_text().splitlines()]
    assert losses[0] != found[0]["loss"]  # another field, not the rows of before


def test_list_prints_a_suite_file_to_start_from(project):
    assert project("list", "--problem", PROBLEM) == 0
    assert 'name = "mine.my-fields:pendulum", width = 4, kind = "a"' in project.output
    project.write("printed", project.output)
    assert project("tables", "printed") == 4  # it is a suite, not yet run
    assert project("list", "quick") == 0 and project.output == (SUITES / "quick.toml").read_text()
    assert project("list", "quick", "--problem", PROBLEM) == 2
    assert project("list", "nosuch") == 2


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_mistake_ends_both_commands_before_anything_is_measured(project, command):
    project.write("helpers/scale.py", "SCALE = 1 / 0\n")
    assert project(command, "--problem", PROBLEM) == 2
    assert project.output.count("failed: ZeroDivisionError") == 1
    assert "helpers/scale.py, line 1: " in project.output and "def pendulum(batch, *, width=64)" in project.output
    assert not (project.folder / "results").exists()
