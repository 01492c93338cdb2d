"""Cells measured by the workers of a Dask cluster.

A worker declares what it has to measure on (`--resources "cpu-slot=1"` or `"gpu=1"`), and a group of cells asks for one
of it. No more groups are handed out than there are slots: Dask holds the death of a worker against all that was handed
to it, and what only waited there would be given up with what killed it.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker, get_worker

from benchmarks.cell import Cell
from benchmarks.environment import Environment, capture
from benchmarks.executors.executor import Emit, ExecutorError, Note, Work, device_of, threads_of
from benchmarks.executors.reservation import reserved
from benchmarks.record import Measurement, Status
from benchmarks.store import MAX_ATTEMPTS

TOPIC = "symplectic-bench"
"""Of the events by which workers tell what they are at."""

TICK_S = 1.0
"""How often slots are counted."""

PATIENCE_S = 300.0
"""How long a scheduler may be gone."""

SLOTS = {"cpu": "cpu-slot", "cuda": "gpu"}
"""The resource that a cell asks for, by its device."""


# What runs on a worker.


def measure_there(work: Work, group: Sequence[Cell], sources: tuple[str, str], job: str) -> dict[str, Any]:
    """Measure a group on the worker that this is called on, as plain values: its environment and its rows."""
    worker = get_worker()
    environment = capture()
    if environment.sources != sources:
        raise ExecutorError(
            f"worker {worker.name} has other sources of symplectic_adjoint or benchmarks than this run"
            f" (commit {environment.commit}): install the same on all machines"
        )
    if multiprocessing.current_process().daemon:
        raise ExecutorError(
            f"worker {worker.name} may not start the processes that cells are measured in: start it with --no-nanny, or"
            " with DASK_DISTRIBUTED__WORKER__DAEMON=False in its environment"
        )

    def note(line: str, cell: Cell | None = None) -> None:
        worker.log_event(TOPIC, {"job": job, "line": f"{worker.name}: {line}", "cell": cell.id if cell else None})

    own = work.within(Path(worker.local_directory) / "symplectic-bench")
    own = _KEPT.setdefault(repr(own), own)
    own.prepare(group, note)
    with reserved(device_of(group), threads_of(group), note) as cores:
        rows = [row.to_json() for row in own.measure(group, cores, note)]
    return {"environment": asdict(environment), "rows": rows}


_KEPT: dict[str, Work] = {}
"""Work that this worker has done, which remembers what it need not try again."""


# What runs here.


@dataclass
class Job:
    """A group that was handed out. at is the cell that its worker was last heard to be at, if it was one."""

    group: Sequence[Cell]
    future: Future
    at: str | None = None


@dataclass
class DaskExecutor:
    """environment is this machine's, whose sources the workers must have. connect gives a client of the scheduler, or
    raises OSError.
    """

    environment: Environment
    connect: Callable[[], Client]
    jobs: dict[str, Job] = field(default_factory=dict)
    """What is handed out, by Dask's key."""

    def run(self, work: Work, cells: Sequence[Cell], emit: Emit, note: Note) -> None:
        waiting = [list(group) for group in reversed(work.groups(cells))]  # the next one is the last
        moved = threading.Event()
        client = self._connected(note)
        try:
            while waiting or self.jobs:
                if client.status == "closed":
                    client = self._connected(note)
                if client.status == "running":
                    self._hand_out(client, work, waiting, moved, note)
                moved.wait(TICK_S)
                moved.clear()
                for key, job in list(self.jobs.items()):
                    if job.future.done():
                        del self.jobs[key]
                        waiting += [group for group in self._take(job, emit, note) if group]
        finally:
            client.cancel([job.future for job in self.jobs.values()])
            self.jobs.clear()
            client.close()

    def _connected(self, note: Note) -> Client:
        """A client. Raises ExecutorError where the scheduler is gone for PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                client = self.connect()
                break
            except OSError as why:
                note("waits for the scheduler")
                if time.monotonic() > deadline:
                    raise ExecutorError(f"no Dask scheduler answers: {why}") from why
                time.sleep(TICK_S)
        client.run_on_scheduler(_give_up_in_time)
        client.subscribe_topic(TOPIC, lambda event: self._heard(event, note))
        return client

    def _heard(self, event: tuple[float, dict[str, Any]], note: Note) -> None:
        told = event[1]
        job = self.jobs.get(told["job"])
        if job is not None:
            job.at = told["cell"]
            note(told["line"])

    def _hand_out(
        self, client: Client, work: Work, waiting: list[list[Cell]], moved: threading.Event, note: Note
    ) -> None:
        """As many groups as there are slots for, in their order but for those whose slot nobody has."""
        slots = _slots(client)
        for job in self.jobs.values():
            slots[slot_of(job.group)] = slots.get(slot_of(job.group), 0) - 1
        for place in reversed(range(len(waiting))):
            slot = slot_of(waiting[place])
            if slots.get(slot, 0) >= 1:
                slots[slot] -= 1
                group = waiting.pop(place)
                job_id = f"{TOPIC}-{group[0].group_id}-{time.monotonic_ns()}"
                future = client.submit(
                    measure_there, work, group, self.environment.sources, job_id, key=job_id, resources={slot: 1}
                )
                self.jobs[job_id] = Job(group, future)
                future.add_done_callback(lambda _: moved.set())
            elif not any(slots.values()):
                break
        if waiting and not self.jobs:
            note(f'no worker is there for what is left: start one with --resources "{slot_of(waiting[-1])}=1"')

    def _take(self, job: Job, emit: Emit, note: Note) -> list[list[Cell]]:
        """Emit the rows of a job that is done. Returns groups that are to be measured yet."""
        status, future = job.future.status, job.future
        if status == "finished":
            found = future.result()
            for row in found["rows"]:
                emit(Measurement.from_json(row), Environment(**found["environment"]))
            future.release()
            return []
        if status == "error":
            error: Any = future.exception()
            if isinstance(error, KilledWorker):
                return self._given_up(job, emit, note)
            assert isinstance(error, Exception)
            raise error
        return [list(job.group)]  # the connection to the scheduler was lost

    def _given_up(self, job: Job, emit: Emit, note: Note) -> list[list[Cell]]:
        """Rows for what killed its workers: the cell that they were at, or the group where it was all of it."""
        culprits = [cell for cell in job.group if job.at in (None, cell.id)]
        reason = f"{MAX_ATTEMPTS} workers died while they measured it; it is given up"
        for cell in culprits:
            row = Measurement.for_cell(cell, status=Status.ERROR, reason=reason, attempt=MAX_ATTEMPTS)
            emit(row, self.environment)
        note(reason)
        return [[cell for cell in job.group if cell not in culprits]]


def slot_of(group: Sequence[Cell]) -> str:
    return SLOTS[device_of(group)]


def _slots(client: Client) -> dict[str, float]:
    """How many of each resource the workers declare."""
    slots: dict[str, float] = {}
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        for name, number in worker["resources"].items():
            slots[name] = slots.get(name, 0) + number
    return slots


def _give_up_in_time(dask_scheduler: Any) -> None:
    """So many workers may die of one group of cells."""
    dask_scheduler.allowed_failures = MAX_ATTEMPTS - 1
