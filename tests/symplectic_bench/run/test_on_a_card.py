"""Cells on CUDA, with the device faked: their processes, and what their rows hold."""

import json
import os
import subprocess
import sys

import pytest

from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.run import cells
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
from symplectic_bench.spec.status import Status
from tests.clone import PYTHONPATH
from tests.symplectic_bench import fake_card, work
from tests.symplectic_bench.sample_cells import make_cell

SUITE = """
name = "tiny"
title = "Tiny"
description = "For tests."
max_cells = 9
budget_s = 100
cell_timeout_s = 60
repeats = 2

[defaults]
batch = 2

[[block]]
problem = [{ name = "linear", dim = 3 }]
method = "dopri5"
rtol = 1e-4
contenders = { ours = "symplectic", torchdiffeq = "continuous" }

[[block]]
problem = [{ name = "linear", dim = 3 }]
method = "rk4"
steps = 4
contenders = { floor = "symplectic", ours = "symplectic" }

[scale.gpu.defaults]
device = "cuda"
"""

TRAINING = """
name = "tiny"
title = "Tiny"
description = "For tests."
max_cells = 9
budget_s = 100
cell_timeout_s = 60
trains = true

[[block]]
problem = [
  { name = "density", data = "synthetic-power", width = 8, layers = 1, test_rows = 10, iterations = 3 },
  { name = "density", data = "synthetic-gas", width = 8, layers = 1, test_rows = 10, iterations = 1 },
]
method = "dopri5"
rtol = 1e-3
contenders = { ours = "symplectic" }

[scale.gpu]
evaluate = false
[scale.gpu.defaults]
device = "cuda"
"""

PROGRAM = """
from tests.symplectic_bench import install_fake_card  # for this program too
from symplectic_bench.run import processes
processes.PRELOAD = (*processes.PRELOAD, "tests.symplectic_bench.install_fake_card")
from symplectic_bench.commands.app import app
app(["run", "tiny.toml", "--scale", "gpu"])
"""


def run_on_a_fake_card(folder, suite):
    """Run the suite, and return its rows and the number of processes that were forked for it."""
    (folder / "tiny.toml").write_text(suite)
    env = {**os.environ, "PYTHONPATH": PYTHONPATH, fake_card.FORKS: str(folder / "forks"), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == Exit.DONE, done.stdout + done.stderr
    (path,) = folder.glob("results/tiny-gpu/*/rows.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return rows, len((folder / "forks").read_text().split())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run_on_a_fake_card(tmp_path_factory.mktemp("measured"), SUITE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_on_a_fake_card(tmp_path_factory.mktemp("trained"), TRAINING)


def test_a_cell_on_a_device_that_is_not_here_is_skipped_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(cells.process, "run", lambda *_: pytest.fail("nothing may be measured"))
    measurer = CellMeasurer(MeasurementSettings(30, repeats=1, warmup=0, cache_dir=tmp_path))
    (row,) = work.measured(measurer, [make_cell(device="cuda")])
    assert (row.status, row.reason) == (Status.SKIPPED, "there is no CUDA device here")


def test_a_cell_has_one_process_and_a_group_one_more(measured):
    rows, forks = measured
    assert [(row["device"], row["status"]) for row in rows] == [("cuda", "ok")] * 4
    question_to_the_server, references, cells, groups = 1, 1, 4, 2
    assert forks == question_to_the_server + references + cells + groups


def test_a_row_of_a_card_has_errors_counts_memory_and_times_and_no_resident_memory(measured):
    rows, _ = measured
    for row in rows:
        assert row["forward_samples_s"] and row["floor_s"] > 0 and row["f_calls_forward"] > 0
        assert row["peak_rss_bytes"] is None and row["rss_curve_s"] is None
    ours = [row for row in rows if row["contender"] == "ours"]
    # Rounding error of float64, and ten times the tolerance.
    assert all(row["error_discrete"] < 1e-12 and row["error_true"] < 1e-3 for row in ours)


def test_the_memory_of_a_card_is_what_its_allocator_counts_above_the_level_before(measured):
    rows, _ = measured
    for row in rows:
        assert row["peak_tensor_bytes"] == fake_card.PEAK_ALLOCATED - fake_card.ALLOCATED
        assert row["peak_reserved_bytes"] == fake_card.PEAK_RESERVED - fake_card.RESERVED
        assert row["peak_tensor_source"] == "exact" and row["floor_tensor_bytes"] > 0


def test_training_measures_memory_while_it_trains(trained):
    (long, short), forks = trained
    question_to_the_server, data = 1, 2
    assert forks == question_to_the_server + data + len(["train"]) + len(["measure_memory", "train"])
    for row in (long, short):
        assert row["status"] == "ok" and len(row["losses"]) == row["sizes"]["iterations"]
        assert row["peak_tensor_bytes"] == fake_card.PEAK_ALLOCATED - fake_card.ALLOCATED
        assert row["kept_tensor_bytes"] == 0 and row["peak_rss_bytes"] is None
        assert row["metrics"] is None  # the suite does not evaluate
