"""Cells measured by the workers of a Dask cluster.

A worker declares what it has to measure on (`--resources "cpu-slot=1"` or `"gpu=1"`), and a group of cells asks for one
of it. No more groups are handed out than there are slots: Dask holds the death of a worker against all that was handed
to it, and what only waited there would be given up with what killed it.
"""

import multiprocessing
import threading
import time
import uuid
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker, get_worker
from distributed.client import ClosedClientError, FutureCancelledError

from symplectic_bench.rows.environment import Environment, capture
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import MAX_ATTEMPTS
from symplectic_bench.run.executors.executor import (
    ExecutorError,
    Measurer,
    ProgressCallback,
    RowCallback,
    device_of,
    threads_of,
)
from symplectic_bench.run.executors.reservation import reserved
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status

TOPIC = "symplectic-bench"
"""Of the events by which workers tell what they are at."""

TICK_S = 1.0
"""How often slots are counted."""

PATIENCE_S = 300.0
"""How long a scheduler may be gone."""

RESULT_S = 60.0
"""How long rows that are there may take to come."""

LOST = (OSError, TimeoutError, CancelledError, FutureCancelledError, ClosedClientError)
"""What a connection that is gone raises."""

SLOTS = {"cpu": "cpu-slot", "cuda": "gpu"}
"""The resource that a cell asks for, by its device."""


# What runs on a worker.


def measure_there(
    measurer: Measurer, group: Sequence[Cell], sources: tuple[str, str], job: str, run: str
) -> dict[str, Any]:
    """Measure a group on the worker that this is called on, as plain values: its environment and its rows."""
    worker = get_worker()
    environment = capture()
    if not sources == environment.sources == _sources_at_first():
        raise ExecutorError(
            f"worker {worker.name} (commit {environment.commit}): its sources of symplectic_adjoint or symplectic_bench"
            " differ from this run's, or have changed since it started: install the same version on all machines and"
            " restart the worker"
        )
    if multiprocessing.current_process().daemon:
        raise ExecutorError(
            f"worker {worker.name} may not start the processes that cells are measured in: start it with --no-nanny, or"
            " with DASK_DISTRIBUTED__WORKER__DAEMON=False in its environment"
        )

    def on_progress(line: str, cell: Cell | None = None, waits: bool = False) -> None:
        told = {"job": job, "line": f"{worker.name}: {line}", "cell": cell.id if cell else None, "waits": waits}
        worker.log_event(TOPIC, told)

    # Beside the worker's own folder, which ends with it.
    own = measurer.within(Path(worker.local_directory).parents[1] / "symplectic-bench" / sources[1][:12])
    if run not in _KEPT:
        _KEPT.clear()
    own = _KEPT.setdefault(run, {}).setdefault(repr(own), own)
    own.prepare(group, on_progress)
    with reserved(device_of(group), threads_of(group), on_progress) as cores:
        rows = [row.to_json() for row in own.measure(group, cores, on_progress)]
    return {"environment": asdict(environment), "rows": rows}


@cache
def _sources_at_first() -> tuple[str, str]:
    """Those of the worker's first group, which its processes go on with."""
    return capture().sources


_KEPT: dict[str, dict[str, Measurer]] = {}
"""The work that this worker does for the sweep at hand, which remembers what it need not try again."""


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
    raises OSError. The scheduler is told to give a group up at its worker's first death: who is to blame is decided
    here.
    """

    environment: Environment
    connect: Callable[[], Client]
    jobs: dict[str, Job] = field(default_factory=dict)
    """What is handed out, by Dask's key."""
    deaths: Counter[str] = field(default_factory=Counter)
    """Of workers, by the cell that they were at, or by the group where it was all of it."""

    def run(
        self, measurer: Measurer, cells: Sequence[Cell], on_row: RowCallback, on_progress: ProgressCallback
    ) -> None:
        waiting = [list(group) for group in reversed(measurer.groups(cells))]  # the next one is the last
        moved, run = threading.Event(), uuid.uuid4().hex
        self.deaths.clear()
        client, ready = self._connected(on_progress), False
        try:
            while waiting or self.jobs:
                try:
                    if client.status == "closed":
                        client, ready = self._connected(on_progress), False
                    if client.status == "running":
                        ready = ready or self._set_up(client, on_progress)
                        self._hand_out(client, measurer, waiting, moved, run, on_progress)
                except LOST:
                    ready = False  # what was handed out comes back as cancelled
                moved.wait(TICK_S)
                moved.clear()
                for key, job in list(self.jobs.items()):
                    if job.future.done():
                        del self.jobs[key]
                        ready = ready and not job.future.cancelled()
                        waiting += [group for group in self._take(job, on_row, on_progress) if group]
        finally:
            with suppress(*LOST):
                client.cancel([job.future for job in self.jobs.values()])
            self.jobs.clear()
            client.close()

    def _connected(self, on_progress: ProgressCallback) -> Client:
        """A client. Raises ExecutorError where the scheduler is gone for PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.connect()
            except OSError as why:
                on_progress("waits for the scheduler", waits=True)
                if time.monotonic() > deadline:
                    raise ExecutorError(f"no Dask scheduler answers: {why}") from why
                time.sleep(TICK_S)
            except (TypeError, ValueError, RuntimeError) as why:
                raise ExecutorError(f"the Dask scheduler cannot be reached: {why}") from why

    def _set_up(self, client: Client, on_progress: ProgressCallback) -> bool:
        """What a scheduler must know, one that was restarted too."""
        client.run_on_scheduler(_give_up_at_once)
        client.subscribe_topic(TOPIC, lambda event: self._heard(event, on_progress))
        return True

    def _heard(self, event: tuple[float, dict[str, Any]], on_progress: ProgressCallback) -> None:
        told = event[1]
        job = self.jobs.get(told["job"])
        if job is not None:
            job.at = told["cell"]
            on_progress(told["line"], waits=told["waits"])

    def _hand_out(
        self,
        client: Client,
        measurer: Measurer,
        waiting: list[list[Cell]],
        moved: threading.Event,
        run: str,
        on_progress: ProgressCallback,
    ) -> None:
        """As many groups as there are slots for, in their order but for those whose slot nobody has."""
        slots = _slots(client)
        for job in self.jobs.values():
            slots[slot_of(job.group)] = slots.get(slot_of(job.group), 0) - 1
        for place in reversed(range(len(waiting))):
            slot = slot_of(waiting[place])
            if slots.get(slot, 0) >= 1:
                slots[slot] -= 1
                group, id = waiting[place], f"{TOPIC}-{waiting[place][0].group_id}-{uuid.uuid4().hex[:8]}"
                arguments = (measurer, group, self.environment.sources, id, run)
                future = client.submit(measure_there, *arguments, key=id, resources={slot: 1})
                self.jobs[id] = Job(waiting.pop(place), future)
                future.add_done_callback(lambda _: moved.set())
            elif not any(slots.values()):
                break
        if waiting and not self.jobs:
            slot = slot_of(waiting[-1])
            on_progress(
                f'waits: no worker is there for what is left; start one with --resources "{slot}=1"', waits=True
            )

    def _take(self, job: Job, on_row: RowCallback, on_progress: ProgressCallback) -> list[list[Cell]]:
        """RowCallback the rows of a job that is done. Returns groups that are to be measured yet."""
        again = [list(job.group)]
        if job.future.status == "finished":
            try:
                found = job.future.result(timeout=RESULT_S)
            except KilledWorker:
                return self._blame(job, on_row, on_progress)
            except LOST:
                return again
            for row in found["rows"]:
                on_row(Measurement.from_json(row), Environment(**found["environment"]))
            job.future.release()
            return []
        if job.future.status == "error":
            try:
                error: Any = job.future.exception(timeout=RESULT_S)
            except LOST:
                return again
            if isinstance(error, KilledWorker):
                return self._blame(job, on_row, on_progress)
            assert isinstance(error, Exception)
            raise error
        return again  # the connection to the scheduler was lost

    def _blame(self, job: Job, on_row: RowCallback, on_progress: ProgressCallback) -> list[list[Cell]]:
        """A worker died. The cell that it was at, or all of the group, is given up the third time."""
        culprits = [cell for cell in job.group if job.at in (None, cell.id)]
        name = job.at or " ".join(cell.id for cell in job.group)
        self.deaths[name] += 1
        if self.deaths[name] < MAX_ATTEMPTS:
            on_progress(f"a worker died; what it was at is tried again: {culprits[0].group_label}")
            return [list(job.group)]
        reason = f"{MAX_ATTEMPTS} workers died while they measured it; it is given up"
        for cell in culprits:
            row = Measurement.for_cell(cell, status=Status.ERROR, reason=reason, attempt=MAX_ATTEMPTS)
            on_row(row, self.environment)
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


def _give_up_at_once(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 0
