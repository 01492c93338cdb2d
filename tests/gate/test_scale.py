"""100,000 cells planned, resumed and summarised in a GiB and linear time, and the sweep's own cost of a cell."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.clone import PYTHONPATH, ROOT

pytestmark = pytest.mark.gate


CELLS = 100_000
FEWER = CELLS // 10

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
from tests.gate.test_scale import suite_of, write_rows

vocabulary = Vocabulary({"mlp": {"state": 8, "width": 64}}, ("dopri5",), lambda cell: None)
results, environment = Path(sys.argv[1]), an_environment()
rows_file = results / "many" / environment.id / "rows.jsonl"
times = {}

def timed(name, function):
    begun = time.perf_counter()
    found = function()
    times[name] = time.perf_counter() - begun
    return found

suite = Suite.model_validate(suite_of(int(sys.argv[2])))
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
print(json.dumps({"times_s": times, "peak_rss_bytes": peak, "cells": len(cells)}))
"""


def suite_of(cells):
    return {
        "name": "many",
        "title": "Many",
        "description": "Of no use.",
        "max_cells": cells,
        "budget_s": 1e9,
        "cell_timeout_s": 60,
        "block": [
            {
                "problem": [{"name": "mlp"}],
                "method": "dopri5",
                "rtol": 1e-6,
                "seed": list(range(cells // 4)),
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


def run(path, cells):
    command = [sys.executable, "-c", PROGRAM, str(path), str(cells)]
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(path, cells):
    path.mkdir()
    run(path, cells)  # writes the rows, in a process of its own
    found = json.loads(run(path, cells))
    print(found)
    assert found["cells"] == cells
    return found


def test_a_hundred_thousand_cells_take_linear_time_and_a_gibibyte(tmp_path):
    """Half a minute on a quiet machine. A busy one is slower throughout, so what is required is that it is linear.

    Twice the time of ten times a tenth is far from what anything quadratic takes, which is ten times that.
    """
    fewer, all_ = measured(tmp_path / "fewer", FEWER), measured(tmp_path / "all", CELLS)
    assert sum(all_["times_s"].values()) < 2 * 10 * sum(fewer["times_s"].values()), (fewer, all_)
    assert all_["peak_rss_bytes"] < 2**30, all_


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
