"""In a clone `python -m benchmarks` runs that clone's command line, whatever else is installed."""

import os
import subprocess
import sys
import sysconfig

import pytest

from tests.clone import ROOT

SUITE = """
name = "tiny"
title = "Tiny"
description = "One cell."
max_cells = 1
budget_s = 60
cell_timeout_s = 60
repeats = 1
measure = []

[[block]]
problem = [{ name = "linear", dim = 2 }]
method = "rk4"
steps = 2
contenders = { ours = ["symplectic"] }
"""

FOREIGN = "raise RuntimeError('imported from another folder than the clone')"


def in_the_clone(*arguments, python=(), path=()):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *python, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(SUITE)
    return ("run", file, "--results", tmp_path / "results", "--plots", tmp_path / "plots")


def test_it_measures_although_other_packages_of_these_names_are_installed(tmp_path, suite):
    for name in ("benchmarks", "symplectic_bench", "symplectic_adjoint"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text(FOREIGN)
    done = in_the_clone(*suite, path=[tmp_path / "site"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells to measure" in done.stdout and "could not import" not in done.stderr
    assert len(list(tmp_path.glob("results/tiny/*/rows.jsonl"))) == 1


def test_it_measures_although_the_clone_is_not_installed(tmp_path, suite):
    """-S ignores the .pth file of an editable installation and the site-packages folder, which is on the path here."""
    done = in_the_clone(*suite, python=["-S"], path=[sysconfig.get_path("purelib")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("results/tiny/*/rows.jsonl"))) == 1
