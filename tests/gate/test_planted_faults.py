"""The gate can go red: a fault planted in a copy of the sources turns it so, against the committed baseline."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clone import PYTHONPATH, ROOT

pytestmark = pytest.mark.gate


SUITE, SCALE = "quick", "smoke"


@dataclass(frozen=True)
class Sources:
    """A copy of the library and the suite that is measured in the place of the real ones."""

    folder: Path

    def __post_init__(self) -> None:
        for package in ("symplectic_adjoint", "benchmarks"):
            shutil.copytree(ROOT / package, self.folder / package, ignore=shutil.ignore_patterns("__pycache__"))

    def plant(self, file: str, sound: str, faulty: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert text.count(sound) == 1, f"{file} has changed: plant the fault anew"
        path.write_text(text.replace(sound, faulty))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(self.folder)}
        command = [sys.executable, "-m", "benchmarks", *arguments]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=600)

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run the suite and compare it with the committed baseline."""
        run = self.command("run", SUITE, "--scale", SCALE, "--repeats", "1")
        assert run.returncode == 0, run.stdout + run.stderr
        return self.command(
            "check", SUITE, "--scale", SCALE, "--baseline", str(ROOT / "results/baseline"), "--markdown", "summary.md"
        )


TRANSPOSE = "symplectic_adjoint/steps/transpose.py"
CALL = "        made = self._f.linearize("
CLASS = "@dataclass(frozen=True)\nclass OutputCotangent"
PULL = "f.transpose(linearization, w, pull)"
EXPAND = "    return list(cells.values())"

FAULTS = {
    "an extra f call": ("f_calls_backward", [(TRANSPOSE, CALL, f"        self._f(step.time(i), step.y)\n{CALL}")]),
    "a leaked tensor": (
        "peak_tensor_bytes",
        [
            (TRANSPOSE, CLASS, f"LEAK = []\n\n\n{CLASS}"),
            (TRANSPOSE, CALL, f"        LEAK.append(step.y.clone())\n{CALL}"),
        ],
    ),
    "a gradient that is off by a millionth": (
        "error_discrete",
        [(TRANSPOSE, PULL, "f.transpose(linearization, w * (1 + 1e-6), pull)")],
    ),
    "a dropped cell": ("status", [("benchmarks/symplectic_bench/spec/expansion.py", EXPAND, f"{EXPAND}[:-1]")]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_turns_the_gate_red(tmp_path, fault):
    metric, plants = FAULTS[fault]
    sources = Sources(tmp_path / "copy")
    for plant in plants:
        sources.plant(*plant)
    done = sources.check()
    assert done.returncode == 3, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "regression" in said and f": {metric} was" in said
    summary = (sources.folder / "summary.md").read_text()
    assert "#### Regressions" in summary and metric.replace("_", "\\_") in summary


def test_sound_sources_leave_it_green(tmp_path):
    sources = Sources(tmp_path / "copy")
    done = sources.check()
    assert done.returncode == 0, done.stdout + done.stderr


PENDULUM = """
import torch
from torch import nn


class Pendulum(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, t, y):
        return self.net(y){fault}


def pendulum(batch, *, width=8):
    torch.manual_seed(3)
    return Pendulum(width), torch.randn(batch, 2), torch.linspace(0, 1, 3), lambda ys: ys[-1].square().mean()
"""


def test_another_project_s_problem_has_its_gate(tmp_path):
    (tmp_path / "mine").mkdir()
    module = tmp_path / "mine" / "fields.py"
    module.write_text(PENDULUM.format(fault=""))

    def check(*arguments):
        env = {**os.environ, "PYTHONPATH": PYTHONPATH}
        command = [sys.executable, "-m", "benchmarks", "check", "--problem", "mine.fields:pendulum", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)

    assert check().returncode == 5  # there is no baseline yet
    made = check("--update")
    assert made.returncode == 0, made.stdout + made.stderr
    lines = (tmp_path / "results/baseline/problem-pendulum.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 7 and json.loads(lines[1])["f_calls_forward"] > 0
    again = check()
    assert again.returncode == 0, again.stdout + again.stderr
    module.write_text(PENDULUM.format(fault=" * 3.0"))
    assert check().returncode == 3


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def compare(folder, *arguments):
    """Run `compare` with its worktrees below the folder."""
    command = [sys.executable, "-m", "benchmarks", "compare", *arguments, "--rounds", "1"]
    env = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(not git("rev-parse", "HEAD"), reason="no git checkout")
def test_a_revision_compared_with_itself_has_no_regression(tmp_path):
    done = compare(tmp_path, "HEAD", "HEAD", "--markdown", str(tmp_path / "summary.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 cells compared, 0 regressions" in done.stdout
    assert "| ours symplectic |" in (tmp_path / "summary.md").read_text()
    assert str(tmp_path) not in git("worktree", "list")  # and nothing is left behind


BEFORE_THE_MOVE = "1a931bb"
"""The last commit whose suite was the package `benchmarks` and whose library was flat."""


@pytest.mark.skipif(not git("rev-parse", "HEAD"), reason="no git checkout")
@pytest.mark.skipif(not git("cat-file", "-t", BEFORE_THE_MOVE), reason="a clone without its history")
def test_a_revision_of_the_old_layout_is_measured_by_its_own_sources(tmp_path):
    done = compare(tmp_path, BEFORE_THE_MOVE, "HEAD")
    assert done.returncode in (0, 3), done.stdout + done.stderr  # counters may be changed on purpose since
    assert "17 cells compared" in done.stdout
