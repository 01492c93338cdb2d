"""A user's own problem through the commands, measured for real."""

import json
import os
import subprocess
import sys

import pytest

from tests.clone import PYTHONPATH

FIELDS = """
import torch
from torch import nn
from helpers.scale import SCALE


class Field(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, t, y):
        return SCALE * self.net(y)


def pendulum(batch, *, width=4, kind="a"):
    return Field(width), torch.randn(batch, 2), torch.linspace(0.0, 1.0, 3), lambda ys: ys[-1].square().mean()
"""

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

[scale.smoke.defaults]
seed = 1
"""


@pytest.fixture
def project(tmp_path):
    """Return a function that runs a command as the console script does, without the current folder on the path."""
    for file, text in {"mine/my-fields.py": FIELDS, "helpers/scale.py": "SCALE = 1.0\n"}.items():
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    (tmp_path / "My Suite.toml").write_text(SUITE)

    def bench(*arguments):
        program = "import sys; sys.path.pop(0); from symplectic_bench.__main__ import main; main()"
        env = {**os.environ, "PYTHONPATH": PYTHONPATH}
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        bench.output = done.stdout + done.stderr
        return done.returncode

    bench.folder = tmp_path
    return bench


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

    assert project("run", "My Suite.toml") == 0 and "0 of 4 cells to measure" in project.output
    assert project("tables", "My Suite.toml") == 0 and project("plots", "My Suite.toml") == 0
    assert project("check", "My Suite.toml", "--update") == 0, project.output
    assert project("check", "My Suite.toml") == 0, project.output
    (project.folder / "helpers/scale.py").write_text("SCALE = 3.0\n")
    assert project("check", "My Suite.toml") == 4 and "run the suite first" in project.output
    assert project("run", "My Suite.toml", "--only", "width=3") == 0 and "2 of 2 cells" in project.output
    (second,) = set(rows()) - {first}
    losses = [json.loads(line)["loss"] for line in second.read_text().splitlines()]
    assert losses[0] != found[0]["loss"]  # another field, not the rows of before
    assert project("run", "My Suite.toml", "--scale", "smoke") == 0, project.output


def test_check_writes_what_run_writes_and_list_prints_the_suite(project):
    problem = ("--problem", "mine.my-fields:pendulum")
    assert project("run", *problem, "--scale", "smoke") == 0, project.output
    files = {path for folder in ("results", "plots") for path in (project.folder / folder).rglob("*.*")}
    written = {path for path in files if path.suffix in (".md", ".csv", ".tex", ".svg", ".png")}
    assert {path.parent.name for path in written} == {"problem-pendulum-smoke", "tables"} and len(written) > 8
    for path in written:
        path.unlink()
    assert project("check", *problem, "--scale", "smoke") == 5
    assert all(path.is_file() for path in written)
    assert project("list", *problem) == 0
    (project.folder / "printed").write_text(project.output)
    assert 'name = "mine.my-fields:pendulum", width = 4, kind = "a"' in project.output
    assert project("tables", "printed") == 4  # it is a suite, not yet run
    assert project("list", "quick") == 0 and project.output.startswith("# The main job")


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_mistake_ends_both_commands_before_anything_is_measured(project, command):
    (project.folder / "helpers/scale.py").write_text("SCALE = 1 / 0\n")
    assert project(command, "--problem", "mine.my-fields:pendulum") == 2
    assert project.output.count("failed: ZeroDivisionError") == 1
    assert "helpers/scale.py, line 1: " in project.output and "def pendulum(batch, *, width=64)" in project.output
    assert not (project.folder / "results").exists()


def test_two_revisions_of_a_users_project_are_compared(project):
    def git(*arguments):
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *author, *arguments], cwd=project.folder, check=True, capture_output=True)

    git("init", "-q")
    arguments = ("compare", "HEAD~1", "HEAD", "--problem", "mine.my-fields:pendulum", "--rounds", "1")
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    git("add", "mine", "helpers")
    git("commit", "-q", "-m", "first")
    assert project(*arguments) == 1 and "HEAD~1: mine is not there" in project.output
    (project.folder / "helpers/scale.py").write_text("SCALE = 9.0\n")
    git("commit", "-q", "-a", "-m", "second")
    assert project(*arguments) == 3, project.output
    assert "7 cells compared" in project.output and "f_calls_forward was" in project.output
