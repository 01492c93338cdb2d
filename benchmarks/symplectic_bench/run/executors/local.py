"""Cells measured on this machine: a lane for every device, one group at a time in each."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from symplectic_bench.rows.environment import Environment
from symplectic_bench.run.executors.executor import Emit, Note, Work, device_of, threads_of
from symplectic_bench.run.executors.reservation import reserved
from symplectic_bench.spec.cell import Cell


@dataclass(frozen=True)
class LocalExecutor:
    """environment is this machine's."""

    environment: Environment

    def run(self, work: Work, cells: Sequence[Cell], emit: Emit, note: Note) -> None:
        work.prepare(cells, note)
        lanes: dict[str, Lane] = {}
        one_at_a_time, stop = threading.Lock(), threading.Event()
        for group in work.groups(cells):
            lane = lanes.setdefault(device_of(group), Lane(self.environment, work, emit, note, one_at_a_time, stop))
            lane.groups.append(group)
        *others, own = lanes.values() or (None,)
        # As daemons: where this thread is interrupted, nothing waits for a measurement under way.
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
    """The groups of one device. The first lane that fails stops all, each when its group is done."""

    environment: Environment
    work: Work
    emit: Emit
    note: Note
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
        with reserved(device_of(group), threads_of(group), self.note) as cores:
            for row in self.work.measure(group, cores, self.note):
                with self.one_at_a_time:
                    self.emit(row, self.environment)
