"""100,000 cells planned, resumed and summarised in bounded time and a GiB, and the sweep's own cost of a cell."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.clone import PYTHONPATH, ROOT

pytestmark = pytest.mark.gate


CELLS = 100_000
MOST_WRITINGS = 16
"""How many times as long as writing all rows in Python the rest may take: 7.7 was measured."""

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from rich.console import Console
from symplectic_bench.run import sweep
from symplectic_bench.run.executors.local import LocalExecutor
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.suite import Scale, Suite
from symplectic_bench.analysis.overview import overview
from symplectic_bench.analysis.summary import summarize
from tests.symplectic_bench.sample_rows import an_environment
from tests.gate.test_scale import CELLS, SUITE, write_rows
from tests.symplectic_bench.sample_rows import a_row

vocabulary = Vocabulary({"mlp": {"state": 8, "width": 64}}, ("dopri5",), lambda cell: None)
results, environment = Path(sys.argv[1]), an_environment()
rows_file = results / "many" / environment.id / "rows.jsonl"
times, writings = {}, []

def seconds(function):
    begun = time.perf_counter()
    found = function()
    return time.perf_counter() - begun, found

def timed(name, function):
    # The pace of this machine at this time: indent makes json write in Python.
    writings.append(seconds(lambda: [json.dumps(row, indent=1) for _ in range(CELLS // 20)])[0] * 20)
    times[name], found = seconds(function)
    return found

suite = Suite.model_validate(SUITE)
row = a_row(expand(suite, vocabulary)[0]).to_json()
cells = timed("plan", lambda: expand(suite, vocabulary))
if not rows_file.exists():
    write_rows(rows_file, cells)
    sys.exit()
plan = sweep.Plan("many", Scale.CPU, suite, cells, cells, fresh=False, repeats=1)
console = Console(file=open(results / "log", "w"))
rows = timed("resume", lambda: sweep.sweep(plan, environment, LocalExecutor(environment), results, console))
assert len(rows) == len(cells)
frame = timed("summarise", lambda: summarize(rows))
assert len(timed("overview", lambda: overview(frame))) == 4
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
writing_s = sum(writings) / len(writings)
print(json.dumps({"times_s": times, "writing_s": writing_s, "peak_rss_bytes": peak, "cells": len(cells)}))
"""

SUITE = {
    "name": "many",
    "title": "Many",
    "description": "Of no use.",
    "max_cells": CELLS,
    "budget_s": 1e9,
    "cell_timeout_s": 60,
    "block": [
        {
            "problem": [{"name": "mlp"}],
            "method": "dopri5",
            "rtol": 1e-6,
            "seed": list(range(CELLS // 4)),
            "contenders": {"ours": ["symplectic", "aca", "backprop"], "torchdiffeq": ["backprop"]},
        }
    ],
}


def write_rows(path, cells):
    from tests.symplectic_bench.sample_rows import a_row

    path.parent.mkdir(parents=True)
    with path.open("w") as out:
        for cell in cells:
            out.write(json.dumps(a_row(cell).to_json()) + "\n")


def run(path):
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_hundred_thousand_cells_take_bounded_time_and_a_gibibyte(tmp_path):
    """Time is measured in that of other work in the same process: a busy machine is slower throughout."""
    run(tmp_path)  # writes them, in a process of its own
    found = json.loads(run(tmp_path))
    print(found)
    assert found["cells"] == CELLS
    assert sum(found["times_s"].values()) < MOST_WRITINGS * found["writing_s"], found
    assert found["peak_rss_bytes"] < 2**30, found


def test_a_cell_costs_little_beside_its_process(tmp_path, monkeypatch):
    """The time of a sweep of stub cells, which take none: rows written and flushed, cores reserved, lines printed."""
    from rich.console import Console

    from symplectic_bench.run import sweep
    from symplectic_bench.run.executors.local import LocalExecutor
    from tests.chaos.driver import plan
    from tests.symplectic_bench.sample_rows import an_environment
    from tests.symplectic_bench.work import Scripted

    cells = 300
    monkeypatch.setattr(sweep, "make_measurer", lambda *_: Scripted())
    begun = time.perf_counter()
    environment = an_environment()
    with (tmp_path / "log").open("w") as log:
        sweep.sweep(plan(cells), environment, LocalExecutor(environment), tmp_path, Console(file=log))
    per_cell_s = (time.perf_counter() - begun) / cells
    print(f"{1e3 * per_cell_s:.2f} ms a cell")
    assert per_cell_s < 0.05
