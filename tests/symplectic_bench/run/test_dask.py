"""Cells measured by the workers of a real scheduler, each a process on this machine."""

import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
from distributed import Client

from symplectic_bench.rows.environment import capture
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
from symplectic_bench.run.executors.cluster import ExecutorChoice, Tls, open_executor
from symplectic_bench.run.executors.dask import DaskExecutor
from symplectic_bench.run.executors.executor import ExecutorError
from symplectic_bench.run.executors.local import LocalExecutor
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status
from tests.clone import PYTHONPATH
from tests.symplectic_bench.dask_cluster import SCHEDULER, dask_cluster
from tests.symplectic_bench.sample_cells import FIXED, make_cell
from tests.symplectic_bench.work import Scripted, silent

# Dask leaves threads and sockets to the garbage collector when its processes are killed, which these tests do.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DETERMINISTIC = (
    "f_calls_forward", "f_calls_backward", "vjps_forward", "vjps_backward", "steps_accepted", "steps_rejected",
    "peak_tensor_bytes", "kept_tensor_bytes", "error_discrete", "error_true", "error_true_bar", "loss",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


def executor_of(cluster, environment=None):
    return DaskExecutor(environment or capture(), lambda: Client(cluster.address, timeout=10))


def rows_of(executor, measurer, cells, on_progress=silent):
    rows = []
    executor.run(
        measurer, cells, lambda row, environment: rows.append(replace(row, environment=environment.id)), on_progress
    )
    return rows


@contextmanager
def looked_after(cluster):
    """Restart meanwhile whatever dies."""
    over = threading.Event()

    def look():
        while not over.wait(0.2):
            cluster.revive()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        cluster.revive()


@dataclass(frozen=True)
class Log:
    """Logs when each cell begins and ends, and in which process."""

    file: Path
    takes_s: float = 0.05

    def __call__(self, cell: Cell) -> None:
        begins = time.time()
        time.sleep(self.takes_s)
        with self.file.open("a") as out:
            out.write(f"{cell.seed} {cell.device} {os.getpid()} {begins} {time.time()}\n")

    def spans(self):
        return [line.split() for line in self.file.read_text().splitlines()]


def test_every_cell_has_one_row_with_the_workers_environment(cluster):
    cells = [make_cell(seed=seed) for seed in range(20)]
    rows = rows_of(executor_of(cluster), Scripted(), cells)
    assert sorted(row.cell_id for row in rows) == sorted(cell.id for cell in cells)
    assert {row.environment for row in rows} == {capture().id}  # which is this machine too


def test_both_workers_work_on_one_group_at_a_time(cluster, tmp_path):
    log = Log(tmp_path / "log", takes_s=0.1)
    rows_of(executor_of(cluster), Scripted(log), [make_cell(seed=seed) for seed in range(12)])
    spans: dict[str, list[tuple[float, float]]] = {}
    for _, _, worker, begins, ends in log.spans():
        spans.setdefault(worker, []).append((float(begins), float(ends)))
    assert len(spans) == 2
    for own in spans.values():
        ordered = sorted(own)
        assert all(first[1] <= second[0] for first, second in pairwise(ordered))


def test_real_cells_have_the_same_deterministic_columns_as_on_this_machine(cluster, tmp_path):
    cells = [
        make_cell(problem="linear", sizes={"dim": 3}, gradient=gradient, batch=batch)
        for batch in (2, 3)
        for gradient in ("symplectic", "aca")
    ] + [make_cell(problem="linear", sizes={"dim": 3}, **FIXED, method="rk4", steps=4)]
    measurer = CellMeasurer(MeasurementSettings(60, 1, 0, tmp_path))
    there = {row.cell_id: row for row in rows_of(executor_of(cluster), measurer, cells)}
    here = {row.cell_id: row for row in rows_of(LocalExecutor(capture()), measurer, cells)}
    assert here.keys() == there.keys() and all(row.status is Status.OK for row in there.values())
    for name in DETERMINISTIC:
        assert {id: getattr(row, name) for id, row in there.items()} == {
            id: getattr(row, name) for id, row in here.items()
        }


def test_a_cell_takes_a_slot_of_its_device(cluster, tmp_path):
    log = Log(tmp_path / "log")
    cells = [make_cell(seed=0), make_cell(seed=1, device="cuda"), make_cell(seed=2)]
    lines = []

    def on_progress(line, cell=None, waits=False):
        lines.append(line)
        if "start one" in line and "gpu" not in cluster.workers:
            cluster.start_worker("gpu", "--no-nanny", "--resources", "gpu=1")

    rows = rows_of(executor_of(cluster), Scripted(log), cells, on_progress)
    assert len(rows) == 3 and any('--resources "gpu=1"' in line for line in lines)
    by_device = {device: pid for _, device, pid, _, _ in log.spans()}
    assert by_device["cuda"] == str(cluster.running["gpu"].pid) != by_device["cpu"]


@dataclass(frozen=True)
class KillsItsWorker:
    seed: int
    file: Path

    def __call__(self, cell: Cell) -> None:
        if cell.seed == self.seed:
            with self.file.open("a") as out:
                out.write("x")
            time.sleep(0.3)  # so that its worker's last event is sent
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Together(Scripted):
    """A measurer with all cells in one group."""

    def groups(self, cells):
        return [list(cells)]


def test_a_cell_that_keeps_killing_its_worker_is_given_up_after_three_tries_and_the_others_are_measured(
    cluster, tmp_path
):
    cells = [make_cell(seed=seed) for seed in range(4)]
    deaths = tmp_path / "deaths"
    with looked_after(cluster):
        rows = {row.seed: row for row in rows_of(executor_of(cluster), Together(KillsItsWorker(2, deaths)), cells)}
    assert {seed: row.status for seed, row in rows.items()} == {
        0: Status.OK, 1: Status.OK, 2: Status.ERROR, 3: Status.OK
    }  # fmt: skip
    assert deaths.read_text() == "xxx"
    assert (rows[2].attempt, rows[2].reason) == (3, "3 workers died while measuring it; it is abandoned")


def test_a_worker_that_dies_once_costs_nothing(cluster, tmp_path):
    log = Log(tmp_path / "log", takes_s=0.3)
    cells = [make_cell(seed=seed) for seed in range(8)]
    with looked_after(cluster):
        threading.Timer(1.0, lambda: cluster.kill("worker-0")).start()
        rows = rows_of(executor_of(cluster), Scripted(log), cells)
    assert sorted(row.seed for row in rows) == list(range(8)) and {row.status for row in rows} == {Status.OK}


def test_a_scheduler_that_is_restarted_costs_nothing(cluster, tmp_path):
    log = Log(tmp_path / "log", takes_s=0.3)
    cells = [make_cell(seed=seed) for seed in range(8)]
    with looked_after(cluster):
        threading.Timer(1.0, lambda: cluster.kill(SCHEDULER)).start()
        rows = rows_of(executor_of(cluster), Scripted(log), cells)
    assert sorted({row.seed for row in rows}) == list(range(8)) and {row.status for row in rows} == {Status.OK}


def test_a_worker_with_other_sources_is_refused(cluster):
    elsewhere = replace(capture(), library_sha256="0" * 64)
    with pytest.raises(ExecutorError, match="differ from this run"):
        rows_of(executor_of(cluster, elsewhere), Scripted(), [make_cell()])


def test_a_worker_that_may_not_start_processes_is_refused_with_advice(tmp_path):
    with dask_cluster(tmp_path, workers=0) as cluster:
        cluster.start_worker("nannied", "--nanny", "--resources", "cpu-slot=1")
        with pytest.raises(ExecutorError, match="--no-nanny"):
            rows_of(executor_of(cluster), Scripted(), [make_cell()])


def test_a_scheduler_that_never_answers_is_an_error(monkeypatch):
    monkeypatch.setattr("symplectic_bench.run.executors.dask.PATIENCE_S", 0.0)
    executor = DaskExecutor(capture(), lambda: Client("tcp://127.0.0.1:9", timeout=0.5))
    with pytest.raises(ExecutorError, match="no Dask scheduler"):
        rows_of(executor, Scripted(), [make_cell()])


SBATCH = """#!/bin/sh
sh "$1" > /dev/null 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -9 "$1" 2> /dev/null; pkill -9 -P "$1"; true
"""


@pytest.mark.parametrize("system", ["local", "slurm"])
def test_jobs_of_a_queueing_system_become_workers(tmp_path, monkeypatch, system):
    """Two scripts stand in for Slurm's commands and start the jobs on this machine."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.chdir(tmp_path)
    options = tmp_path / "options.toml"
    options.write_text('jobs = 2\n[options]\ncores = 1\nmemory = "2GB"\n')
    cells = [make_cell(seed=seed) for seed in range(4)]
    with open_executor(ExecutorChoice(cluster=system, cluster_options=options), capture()) as executor:
        rows = rows_of(executor, Scripted(), cells)
    assert sorted(row.seed for row in rows) == list(range(4))


def test_unknown_options_of_a_queueing_system_are_an_error(tmp_path):
    options = tmp_path / "options.toml"
    options.write_text('[options]\ncores = 1\nmemory = "2GB"\nqueeu = "short"\n')
    place = ExecutorChoice(cluster="slurm", cluster_options=options)
    with pytest.raises(ExecutorError, match=r"--cluster slurm: .*queeu"), open_executor(place, capture()):
        pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_a_scheduler_with_tls_accepts_only_clients_with_a_certificate(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-days", "1"]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *subject,
    ]
    subprocess.run(make, check=True, capture_output=True)
    files = ["--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key)]
    with dask_cluster(tmp_path, workers=1, protocol="tls", options=files) as cluster:
        place = ExecutorChoice(scheduler=cluster.address, tls=Tls(cert, cert, key))
        with open_executor(place, capture()) as executor:
            assert len(rows_of(executor, Scripted(), [make_cell()])) == 1
        with pytest.raises((OSError, TypeError)):
            Client(cluster.address, timeout=2)
