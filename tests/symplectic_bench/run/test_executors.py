"""Cells measured on this machine: one group at a time per device, and no process outlives its driver."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from symplectic_bench.run.executors.cluster import (
    ClusterOptions,
    ExecutorChoice,
    ExecutorChoiceError,
    Tls,
    open_executor,
)
from symplectic_bench.run.executors.local import LocalExecutor
from symplectic_bench.run.executors.reservation import reserved
from symplectic_bench.run.processes import Limits, run
from tests.symplectic_bench.sample_cells import make_cell
from tests.symplectic_bench.sample_rows import an_environment
from tests.symplectic_bench.work import Scripted, silent

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@pytest.fixture
def own_devices(tmp_path, monkeypatch):
    """Make reservations that no other test sees."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.usefixtures("own_devices")
class TestReservation:
    def test_no_two_measurements_have_the_same_core(self):
        with ExitStack() as held:
            cores = [core for _ in range(CORES) for core in held.enter_context(reserved("cpu", 1, silent))]
            assert len(set(cores)) == CORES

    def test_a_measurement_waits_for_its_cores_and_says_so(self):
        seen = threading.Event()
        got = []

        def second():
            with reserved("cpu", CORES, lambda line, cell=None, waits=False: seen.set()) as cores:
                got.append(cores)

        with reserved("cpu", 1, silent):
            thread = threading.Thread(target=second)
            thread.start()
            assert seen.wait(10) and not got
        thread.join(10)
        assert len(got[0]) == CORES

    def test_more_threads_than_cores_reserve_all_cores(self):
        with reserved("cpu", 10_000, silent) as cores:
            assert len(cores) == CORES

    @pytest.mark.skipif(CORES < 2, reason="a core each")
    def test_a_gpu_is_reserved_for_one_measurement(self):
        seen = threading.Event()

        def second():
            with reserved("cuda", 1, lambda line, cell=None, waits=False: seen.set()):
                pass

        with reserved("cuda", 1, silent):
            thread = threading.Thread(target=second)
            thread.start()
            assert seen.wait(10)
        thread.join(10)
        assert not thread.is_alive()


def affinity():
    return sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no pinning here")
def test_a_process_runs_on_its_cores_only():
    core = max(os.sched_getaffinity(0))
    assert run(affinity, (), Limits(30, cores=(core,))).values == [[core]]
    assert run(affinity, (), Limits(30)).values == [affinity()]


def test_two_gpus_are_two_devices(own_devices, monkeypatch):
    if CORES < 2:
        pytest.skip("a core each")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with reserved("cuda", 1, silent):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
        with reserved("cuda", 1, lambda *_, **__: pytest.fail("it waits")):
            pass


class TestLocally:
    def rows(self, cells, act=lambda cell: None):
        rows = []
        executor = LocalExecutor(an_environment())
        executor.run(Scripted(act), cells, lambda row, environment: rows.append((row, environment)), silent)
        return rows

    def test_every_cell_has_a_row_with_its_environment(self):
        cells = [make_cell(seed=seed) for seed in range(3)]
        rows = self.rows(cells)
        assert [row.cell_id for row, _ in rows] == [cell.id for cell in cells]
        assert all(environment == an_environment() for _, environment in rows)

    def test_no_cells_are_no_rows(self):
        assert self.rows([]) == []

    @pytest.mark.skipif(CORES < 2, reason="a core each")
    def test_devices_measure_at_the_same_time(self, own_devices):
        both = threading.Barrier(2)

        def act(cell):
            both.wait(30)  # each waits for the other, so in sequence they would time out

        assert len(self.rows([make_cell(), make_cell(device="cuda")], act)) == 2

    def test_cells_of_one_device_measure_one_after_another(self):
        at_work = []

        def act(cell):
            at_work.append(cell)
            time.sleep(0.02)
            assert at_work == [cell]
            at_work.clear()

        self.rows([make_cell(seed=seed) for seed in range(3)], act)

    def test_an_error_in_a_lane_is_raised_and_stops_the_others(self):
        def act(cell):
            if cell.device == "cuda":
                raise ValueError("no such card")
            time.sleep(0.2)

        with pytest.raises(ValueError, match="no such card"):
            self.rows([make_cell(device="cuda"), *(make_cell(seed=seed) for seed in range(100))], act)


DRIVER = """
from symplectic_bench.run.processes import Limits, run
from tests.symplectic_bench.run.test_executors import announce_and_sleep
run(announce_and_sleep, ({file!r},), Limits(60))
"""


def announce_and_sleep(file):
    child = subprocess.Popen(["sleep", "60"])
    with open(file + ".new", "w") as out:
        out.write(f"{os.getpid()} {child.pid}")
    os.replace(file + ".new", file)
    time.sleep(60)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks in /proc")
def test_measuring_processes_die_with_a_killed_driver(tmp_path):
    """Otherwise an abandoned cell would disturb the timings of the resumed run."""
    file = tmp_path / "pids"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER.format(file=str(file))])
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.02)
    pids = [int(pid) for pid in file.read_text().split()]
    assert all(map(is_running, pids))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, pids))


class TestExecutorChoice:
    def test_the_default_is_this_machine(self):
        with open_executor(ExecutorChoice(), an_environment()) as executor:
            assert isinstance(executor, LocalExecutor)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"scheduler": "tcp://a:1", "cluster": "slurm"}, "one of the two"),
            ({"tls": Tls(ca=None, key=__file__)}, "for --scheduler"),
            ({"cluster": "slrum"}, "unknown"),
            ({"scheduler": "10.0.0.1"}, "address"),
            ({"scheduler": "tcp://host:port"}, "address"),
            ({"scheduler": "tls://host:1"}, "--tls-ca"),
            ({"cluster_options": "x.toml"}, "needs --cluster"),
        ],
    )
    def test_contradictory_options_are_refused(self, options, words):
        with pytest.raises(ExecutorChoiceError, match=words):
            ExecutorChoice(**options)

    def test_missing_files_are_reported_before_anything_starts(self, tmp_path):
        with pytest.raises(ExecutorChoiceError, match=r"no file .*ca\.pem: check its path"):
            ExecutorChoice(scheduler="tls://a:1", tls=Tls(ca=tmp_path / "ca.pem"))

    @pytest.mark.parametrize("text", ["jobs = 0", "jbos = 2", "jobs = [", "slots = {cpu-slot = 'many'}"])
    def test_options_of_a_cluster_are_checked(self, tmp_path, text):
        file = tmp_path / "options.toml"
        file.write_text(text)
        with pytest.raises(ExecutorChoiceError, match=r"options\.toml"):
            ExecutorChoice(cluster="slurm", cluster_options=file)

    def test_options_of_a_cluster_are_read(self, tmp_path):
        file = tmp_path / "options.toml"
        file.write_text('jobs = 3\nslots = {gpu = 1}\n[options]\nqueue = "short"\n')
        options = ExecutorChoice(cluster="slurm", cluster_options=file).options()
        assert options == ClusterOptions(jobs=3, slots={"gpu": 1}, options={"queue": "short"})
