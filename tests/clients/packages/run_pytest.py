"""A run of tests that are not ours, in a process of its own, with torchdiffeq replaced by this library."""

import os
import re
import subprocess
import sys

from tests.clone import ROOT

TIME_LIMIT_S = 600


def run(folder, *arguments, environment=()):
    """Run pytest in the folder; return its output. The tests import what is installed, not what the folder holds."""
    command = [sys.executable, "-m", "symplectic_adjoint", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    given = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000", "OMP_NUM_THREADS": "1", **dict(environment)}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=given, capture_output=True, text=True, timeout=TIME_LIMIT_S
    )
    return done.stdout + done.stderr


def outcome(output):
    """Return the numbers of the last line, by word: {"passed": 46, "failed": 1}."""
    last = output.strip().splitlines()[-1]
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", last)}


def failures(output):
    """Return the failed tests and subtests, with the messages that pytest's summary gives."""
    return [line for line in output.splitlines() if re.match(r"(FAILED|SUBFAILED|ERROR)", line)]
