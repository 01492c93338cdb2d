"""A Dask scheduler and its workers on this machine, as processes that a test may kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.clone import PYTHONPATH, ROOT

SCHEDULER = "scheduler"


@dataclass
class DaskCluster:
    folder: Path
    port: int
    protocol: str = "tcp"
    options: Sequence[str] = ()  # of all its processes
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    workers: dict[str, list[str]] = field(default_factory=dict)  # name -> options, to start it again

    @property
    def address(self) -> str:
        return f"{self.protocol}://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        self._start(SCHEDULER, "dask_scheduler", "--host", f"{self.protocol}://127.0.0.1", "--port", str(self.port))
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < deadline, "the scheduler does not come up"
            time.sleep(0.05)

    def start_worker(self, name: str, *options: str) -> None:
        self.workers[name] = list(options)
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        local = ["--name", name, "--local-directory", str(folder)]
        self._start(
            name, "dask_worker", self.address, *local, *(options or ("--no-nanny", "--resources", "cpu-slot=1"))
        )

    def _start(self, name: str, module: str, *arguments: str) -> None:
        env = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments, *self.options, "--no-dashboard"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def revive(self) -> None:
        """Start again what has died, as those do who look after a cluster."""
        if SCHEDULER not in self.running or self.running[SCHEDULER].poll() is not None:
            self.start_scheduler()
        for name, options in self.workers.items():
            if name not in self.running or self.running[name].poll() is not None:
                self.start_worker(name, *options)


@contextmanager
def dask_cluster(
    folder: Path, workers: int = 2, protocol: str = "tcp", options: Sequence[str] = ()
) -> Iterator[DaskCluster]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = DaskCluster(folder, port, protocol, options)
    try:
        cluster.start_scheduler()
        for number in range(workers):
            cluster.start_worker(f"worker-{number}")
        yield cluster
    finally:
        for name in list(cluster.running):
            cluster.kill(name)
