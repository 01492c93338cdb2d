"""Sweeps whose parts are killed: no finished cell is lost or measured again, and the rows equal a quiet sweep's."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from symplectic_bench.rows.store import read_rows
from symplectic_bench.spec.status import Status
from tests.clone import PYTHONPATH, ROOT
from tests.symplectic_bench.dask_cluster import SCHEDULER, dask_cluster

pytestmark = pytest.mark.chaos

LONGEST_S = 180.0
"""For a sweep that nothing disturbs any more."""


@dataclass
class Sweep:
    """A sweep of stub cells, of which there are so many, begun again and again."""

    folder: Path
    cells: int
    scheduler: tuple[str, ...] = ()
    finished: dict[str, int] = field(default_factory=dict)
    """Cells that have a row -> how often they had been begun by then."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.journal.touch()

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def rows_file(self) -> Path | None:
        return next(self.folder.glob("results/stub/*/rows.jsonl"), None)

    def start(self, **options) -> subprocess.Popen:
        arguments = [str(self.folder / "results"), str(self.journal), str(self.cells), *self.scheduler]
        command = [sys.executable, "-m", "tests.chaos.driver", *arguments]
        env = {**os.environ, "PYTHONPATH": PYTHONPATH}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, **options)

    def rows(self):
        return read_rows(self.rows_file).rows if self.rows_file else []

    def begun(self) -> dict[str, int]:
        count: dict[str, int] = {}
        for line in self.journal.read_text().splitlines():
            cell = line.split()[0]
            count[cell] = count.get(cell, 0) + 1
        return count

    def check(self) -> None:
        """Check that finished rows are still there and were not begun again. Nothing may be running."""
        begun = self.begun()
        done = {row.cell_id for row in self.rows() if row.status is Status.OK}
        assert self.finished.keys() <= done, "a finished row is lost"
        again = [cell for cell, times in self.finished.items() if begun[cell] != times]
        assert not again, "a finished cell was measured again"
        self.finished = {cell: begun[cell] for cell in done}

    def finish(self) -> None:
        for _ in range(4):  # a cell whose process was killed is an error, tried again by the same command
            assert self.start().wait(LONGEST_S) == 0, (self.folder / "log").read_text()[-3000:]
            if {row.status for row in self.rows()} == {Status.OK}:
                break

    def outcome(self) -> dict[str, dict]:
        """Return the rows without their numbers of attempts and the times that measuring took."""
        return {row.cell_id: {**row.to_json(), "attempt": None, "measuring_s": None} for row in self.rows()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the outcome of a sweep of 1,000 cells, by its number of cells."""
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"), CELLS)
    sweep.finish()
    assert len(sweep.rows()) == CELLS and set(sweep.begun().values()) == {1}
    return sweep.outcome()


CELLS = 1000


def expected(undisturbed, cells):
    """Return the first `cells` of them, which are the same cells."""
    return dict(list(undisturbed.items())[:cells])


def share(pytestconfig, part):
    return max(1, round(part * pytestconfig.getoption("kills")))


def test_a_driver_killed_anywhere_loses_and_repeats_nothing(tmp_path, undisturbed, pytestconfig):
    """Between kills rows are torn, and delivered twice, as a crash of the machine or of its disk would leave them."""
    sweep, dice = Sweep(tmp_path / "sweep", CELLS), random.Random(1)
    for kill in range(share(pytestconfig, 0.6)):
        driver = sweep.start()
        time.sleep(dice.uniform(0.4, 1.6))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(0.1)  # a cell's process ends a moment later
        sweep.check()
        if sweep.rows() and kill % 3 == 1:
            tear(sweep.rows_file)
        if sweep.rows() and kill % 3 == 2:
            deliver_again(sweep.rows_file)
    sweep.finish()
    sweep.check()
    assert sweep.outcome() == undisturbed


def tear(path):
    """Half a row, of a cell that is not finished, without an end."""
    with path.open("ab") as out:
        line = json.dumps({"cell_id": "0" * 16, "status": "ok"}).encode()
        out.write(line[: len(line) // 2])


def deliver_again(path):
    with path.open("r+b") as file:
        last = [line for line in file.read().splitlines() if line.startswith(b"{") and line.endswith(b"}")][-1]
        file.write(b"\n" + last + b"\n")


def test_processes_of_cells_killed_anywhere_are_tried_again(tmp_path, undisturbed, pytestconfig):
    sweep, dice = Sweep(tmp_path / "sweep", 200), random.Random(2)
    driver = sweep.start()
    for _ in range(share(pytestconfig, 0.1)):
        seen = len(sweep.journal.read_text().splitlines())
        while len(lines := sweep.journal.read_text().splitlines()) < seen + dice.randint(1, 8):
            time.sleep(0.002)
        try:
            os.kill(int(lines[-1].split()[1]), signal.SIGKILL)
        except ProcessLookupError:
            continue  # it had just ended
    assert driver.wait(LONGEST_S) == 0
    sweep.finish()
    assert sweep.outcome() == expected(undisturbed, 200)


def test_a_cluster_s_parts_killed_anywhere_lose_and_repeat_nothing(tmp_path, undisturbed, pytestconfig):
    cells, dice = 400, random.Random(3)
    with dask_cluster(tmp_path) as cluster:
        sweep = Sweep(tmp_path / "sweep", cells, (cluster.address,))
        driver = sweep.start()
        for _ in range(share(pytestconfig, 0.3)):
            time.sleep(dice.uniform(0.5, 2.5))
            victim = dice.choice(["driver", "worker-0", "worker-1", SCHEDULER])
            if victim == "driver":
                driver.send_signal(signal.SIGKILL)
                driver.wait()
            elif victim in cluster.running:
                cluster.kill(victim)
            assert sweep.finished.keys() <= {row.cell_id for row in sweep.rows()}, "a finished row is lost"
            sweep.finished = {row.cell_id: 0 for row in sweep.rows()}
            cluster.revive()
            if driver.poll() is not None:
                driver = sweep.start()
        deadline = time.monotonic() + LONGEST_S
        while driver.poll() is None and time.monotonic() < deadline:
            cluster.revive()
            time.sleep(0.3)
        assert driver.poll() == 0, (sweep.folder / "log").read_text()[-3000:]
        sweep.finish()
        assert sweep.outcome() == expected(undisturbed, cells)
        lines = sweep.rows_file.read_text().splitlines()
        assert len({json.loads(line)["cell_id"] for line in lines}) == len(lines) == cells  # written once each


def test_a_full_disk_is_said_and_costs_the_row_at_hand(tmp_path, undisturbed):
    """The limit on the size of files fails as a full disk does, in the middle of a line."""
    sweep = Sweep(tmp_path / "sweep", 100)
    full = 40_000

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))

    assert sweep.start(preexec_fn=fill).wait(LONGEST_S) != 0
    assert "make room" in " ".join((sweep.folder / "log").read_text().split())
    size = sweep.rows_file.stat().st_size
    assert 0 < size <= full and sweep.rows_file.read_bytes().endswith(b"\n")
    sweep.check()
    sweep.finish()
    sweep.check()
    assert sweep.outcome() == expected(undisturbed, 100)


# One real cell a fault.

REAL = """
name = "real"
title = "Real"
description = "One small cell."
max_cells = 1
budget_s = 600
cell_timeout_s = 60
repeats = 40
measure = ["time"]
[[block]]
problem = [{ name = "mlp", state = 8, width = 64, layers = 2 }]
batch = 64
method = "dopri5"
rtol = 1e-8
contenders = { ours = "symplectic" }
"""


@dataclass
class RealSweep:
    folder: Path
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "real.toml").write_text(REAL)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks", "run", "real.toml", *self.options]
        env = {**os.environ, "PYTHONPATH": PYTHONPATH}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)

    def row(self):
        (path,) = self.folder.glob("results/real/*/rows.jsonl")
        (row,) = read_rows(path).rows
        return row


def cell_processes(of: int) -> list[int]:
    """Return the descendants of this process that lead a group: those that measure cells."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = (int(after_name[1]), int(after_name[2]))
    descendants = {of}
    for _ in range(5):
        descendants |= {pid for pid, (parent, _) in parents.items() if parent in descendants}
    return [pid for pid in descendants - {of} if parents.get(pid, (0, 0))[1] == pid]


def wait_for_a_cell(process: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = cell_processes(process)
        if found:
            return found[0]
        time.sleep(0.01)
    raise AssertionError("no cell was measured")


@pytest.fixture(scope="module")
def undisturbed_real(tmp_path_factory):
    sweep = RealSweep(tmp_path_factory.mktemp("real"))
    assert sweep.start().wait(LONGEST_S) == 0, (sweep.folder / "log").read_text()
    return counters(sweep.row())


def counters(row):
    assert row.status is Status.OK, row.reason
    names = ("f_calls_forward", "f_calls_backward", "vjps_backward", "steps_accepted", "error_discrete", "loss")
    return [getattr(row, name) for name in names]


@pytest.mark.parametrize("victim", ["cell", "driver"])
def test_a_real_cell_survives_a_kill(tmp_path, undisturbed_real, victim):
    sweep = RealSweep(tmp_path / "sweep")
    driver = sweep.start()
    cell = wait_for_a_cell(driver.pid)
    os.kill(cell if victim == "cell" else driver.pid, signal.SIGKILL)
    driver.wait(LONGEST_S)
    if victim == "cell":
        assert sweep.row().status in (Status.OOM, Status.ERROR, Status.OK)  # a kill may be the kernel's, for memory
        if sweep.row().status is Status.OOM:
            return
    assert sweep.start().wait(LONGEST_S) == 0, (sweep.folder / "log").read_text()
    assert counters(sweep.row()) == undisturbed_real


def test_a_real_cell_survives_its_worker(tmp_path, undisturbed_real):
    with dask_cluster(tmp_path, workers=1) as cluster:
        sweep = RealSweep(tmp_path / "sweep", ("--scheduler", cluster.address))
        driver = sweep.start()
        cell = wait_for_a_cell(cluster.running["worker-0"].pid)
        cluster.kill("worker-0")
        deadline = time.monotonic() + 10
        while Path(f"/proc/{cell}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{cell}").exists(), "what a dead worker measured goes on"
        cluster.revive()
        assert driver.wait(LONGEST_S) == 0, (sweep.folder / "log").read_text()
        assert counters(sweep.row()) == undisturbed_real
