"""Measure cells on this machine: one lane per device, which measures one group at a time."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from symplectic_bench.rows.environment import Environment
from symplectic_bench.run.executors.executor import (
    Measurer,
    ProgressCallback,
    RowCallback,
    device_of,
    threads_of,
    timed,
)
from symplectic_bench.run.executors.reservation import reserved
from symplectic_bench.spec.cell import Cell


@dataclass(frozen=True)
class LocalExecutor:
    """Measures on this machine, whose environment is `environment`."""

    environment: Environment

    def run(
        self, measurer: Measurer, cells: Sequence[Cell], on_row: RowCallback, on_progress: ProgressCallback
    ) -> None:
        measurer.prepare(cells, on_progress)
        lanes: dict[str, Lane] = {}
        one_at_a_time, stop = threading.Lock(), threading.Event()
        for group in measurer.groups(cells):
            lane = lanes.setdefault(
                device_of(group), Lane(self.environment, measurer, on_row, on_progress, one_at_a_time, stop)
            )
            lane.groups.append(group)
        *others, own = lanes.values() or (None,)
        # Daemon threads: if this thread is interrupted, the program does not wait for measurements in progress.
        threads = [threading.Thread(target=lane.run, daemon=True) for lane in others if lane is not None]
        for thread in threads:
            thread.start()
        if own is not None:
            own.run()
        for thread in threads:
            thread.join()
        for lane in lanes.values():
            if lane.error is not None:
                raise lane.error


@dataclass
class Lane:
    """The groups of one device. When a lane fails, the others stop after their current group."""

    environment: Environment
    measurer: Measurer
    on_row: RowCallback
    on_progress: ProgressCallback
    one_at_a_time: threading.Lock
    stop: threading.Event
    groups: list[Sequence[Cell]] = field(default_factory=list)
    error: Exception | None = None

    def run(self) -> None:
        try:
            for group in self.groups:
                if self.stop.is_set():
                    break
                self._measure(group)
        except Exception as error:
            self.error = error
            self.stop.set()

    def _measure(self, group: Sequence[Cell]) -> None:
        with reserved(device_of(group), threads_of(group), self.on_progress) as cores:
            for row in timed(self.measurer.measure(group, cores, self.on_progress)):
                with self.one_at_a_time:
                    self.on_row(row, self.environment)
