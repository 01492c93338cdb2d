"""The gate and the tests can go red: a fault planted in a copy of the sources turns them so."""

import os
import re
import subprocess
import sys

import pytest

from tests.clone import ROOT
from tests.gate.copies import Copy
from tests.gate.faults import FAULTS_OF_LIBRARY
from tests.gate.suite_faults import FAULTS_OF_SUITE

FAULTS = (*FAULTS_OF_LIBRARY, *FAULTS_OF_SUITE)
NAMES = [fault.name for fault in FAULTS]


def planted(fault):
    """Return the fault as a parameter: those of CI are planted for every change, all of them at night."""
    marks = [pytest.mark.planted, *([pytest.mark.gate] if fault.in_ci else [])]
    return pytest.param(fault, id=fault.name, marks=marks)


def failures(done):
    """Return the ids of the tests that failed, without errors outside of them."""
    assert not re.search(r"^ERROR ", done.stdout, re.MULTILINE), done.stdout + done.stderr
    return re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)


def is_one_of(found, test):
    """Return whether the id found is that of the test, or of one of its cases or functions."""
    return found == test or found.startswith((f"{test}[", f"{test}::"))


@pytest.mark.parametrize("fault", [planted(fault) for fault in FAULTS])
def test_a_planted_fault_is_seen(tmp_path, fault):
    copy = Copy(tmp_path / "copy")
    if fault.tests:
        sound = copy.test(fault.tests)
        assert sound.returncode == 0, f"{fault.tests} fail without the fault:\n{sound.stdout}{sound.stderr}"
    for plant in fault.plants:
        copy.plant(plant)
    if fault.tests:
        done = copy.test(fault.tests)
        found = failures(done)
        survived = [test for test in fault.tests if not any(is_one_of(one, test) for one in found)]
        assert not survived, f"{fault.name} SURVIVED {survived}:\n{done.stdout}{done.stderr}"
    if fault.metric:
        done = copy.check(timed=fault.timed)
        assert done.returncode == 3, f"{fault.name} SURVIVED the gate:\n{done.stdout}{done.stderr}"
        said = " ".join(done.stdout.split())
        assert f" regression {fault.metric} was" in said, said
        summary = (copy.folder / "summary.md").read_text(encoding="utf-8")
        assert "#### Regressions" in summary and fault.metric.replace("_", "\\_") in summary


@pytest.mark.gate
@pytest.mark.planted
def test_sound_sources_leave_the_gate_green(tmp_path):
    done = Copy(tmp_path / "copy").check(timed=True)
    assert done.returncode == 0, done.stdout + done.stderr


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def compare(folder, *arguments):
    """Run `compare` with its worktrees below the folder."""
    command = [sys.executable, "-m", "benchmarks", "compare", *arguments, "--rounds", "1"]
    env = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.gate
@pytest.mark.skipif(not git("rev-parse", "HEAD"), reason="no git checkout")
def test_a_revision_compared_with_its_like_has_no_regression(tmp_path):
    somebody = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    like = git(*somebody, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "The same sources again")
    done = compare(tmp_path, "HEAD", like, "--markdown", str(tmp_path / "summary.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 cells compared, 0 regressions" in done.stdout
    assert "| ours symplectic |" in (tmp_path / "summary.md").read_text()
    assert str(tmp_path) not in git("worktree", "list")  # and nothing is left behind


BEFORE_THE_MOVE = "1a931bb"
"""The last commit whose suite was the package `benchmarks` and whose library was flat."""


@pytest.mark.gate
@pytest.mark.skipif(not git("rev-parse", "HEAD"), reason="no git checkout")
@pytest.mark.skipif(not git("cat-file", "-t", BEFORE_THE_MOVE), reason="a clone without its history")
def test_a_revision_of_the_old_layout_is_measured_by_its_own_sources(tmp_path):
    done = compare(tmp_path, BEFORE_THE_MOVE, "HEAD")
    assert done.returncode in (0, 3), done.stdout + done.stderr  # counters may be changed on purpose since
    assert "17 cells compared" in done.stdout
