"""Measure cells on the workers of a Dask cluster.

A worker declares its slots (`--resources "cpu-slot=1"` or `"gpu=1"`), and a group of cells takes one. No more groups
are submitted than there are slots: Dask blames the death of a worker on every task assigned to it, so a waiting group
would be abandoned together with the one that killed the worker.
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
    timed,
)
from symplectic_bench.run.executors.reservation import reserved
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status

TOPIC = "symplectic-bench"
"""The topic of the events by which workers report their progress."""

TICK_S = 1.0
"""Time between counts of the free slots."""

PATIENCE_S = 300.0
"""Time to wait for a scheduler that does not answer."""

RESULT_S = 60.0
"""Time limit for fetching the rows of a finished group."""

LOST = (OSError, TimeoutError, CancelledError, FutureCancelledError, ClosedClientError)
"""The exceptions that mean a lost connection."""

SLOTS = {"cpu": "cpu-slot", "cuda": "gpu"}
"""The resource that a cell takes, by device."""


# On a worker.


def measure_on_worker(
    measurer: Measurer, group: Sequence[Cell], sources: tuple[str, str], job: str, sweep_id: str
) -> dict[str, Any]:
    """Measure a group on the worker that runs this; return the worker's environment and the rows as plain values."""
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
            f"worker {worker.name} is a daemon process, which may not start the processes that measure cells: start"
            " it with --no-nanny, or with DASK_DISTRIBUTED__WORKER__DAEMON=False in its environment"
        )

    def on_progress(line: str, cell: Cell | None = None, waits: bool = False) -> None:
        message = {"job": job, "line": f"{worker.name}: {line}", "cell": cell.id if cell else None, "waits": waits}
        worker.log_event(TOPIC, message)

    # Beside the worker's own folder, which is removed when the worker ends.
    own = measurer.within(Path(worker.local_directory).parents[1] / "symplectic-bench" / sources[1][:12])
    if sweep_id not in _MEASURERS:
        _MEASURERS.clear()
    own = _MEASURERS.setdefault(sweep_id, {}).setdefault(repr(own), own)
    own.prepare(group, on_progress)
    with reserved(device_of(group), threads_of(group), on_progress) as cores:
        rows = [row.to_json() for row in timed(own.measure(group, cores, on_progress))]
    return {"environment": asdict(environment), "rows": rows}


@cache
def _sources_at_first() -> tuple[str, str]:
    """Return the digests as of the worker's first group: it keeps using the code that it imported then."""
    return capture().sources


_MEASURERS: dict[str, dict[str, Measurer]] = {}
"""This worker's measurers in the current sweep: they remember which references they have computed."""


# On this machine.


@dataclass
class Job:
    """A submitted group. `cell_id` is the cell that its worker last reported to be measuring, if any."""

    group: Sequence[Cell]
    future: Future
    cell_id: str | None = None


@dataclass
class DaskExecutor:
    """Measures on the workers of a Dask scheduler.

    `environment` is this machine's; the workers must have the same sources. `connect` returns a client of the scheduler
    or raises OSError. The scheduler is set to report the first death of a group's worker, because this class decides
    which cells to abandon.
    """

    environment: Environment
    connect: Callable[[], Client]
    jobs: dict[str, Job] = field(default_factory=dict)
    """The submitted groups, by Dask's key."""
    deaths: Counter[str] = field(default_factory=Counter)
    """Deaths of workers, by the cell that they were measuring, or by group if the cell is unknown."""

    def run(
        self, measurer: Measurer, cells: Sequence[Cell], on_row: RowCallback, on_progress: ProgressCallback
    ) -> None:
        waiting = [list(group) for group in reversed(measurer.groups(cells))]  # the last one is next
        changed, sweep_id = threading.Event(), uuid.uuid4().hex
        self.deaths.clear()
        client, ready = self._connected(on_progress), False
        try:
            while waiting or self.jobs:
                try:
                    if client.status == "closed":
                        client, ready = self._connected(on_progress), False
                    if client.status == "running":
                        ready = ready or self._set_up(client, on_progress)
                        self._submit(client, measurer, waiting, changed, sweep_id, on_progress)
                except LOST:
                    ready = False  # the submitted groups come back as cancelled
                changed.wait(TICK_S)
                changed.clear()
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
        """Return a client. Raises ExecutorError if the scheduler does not answer for PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.connect()
            except OSError as why:
                on_progress("waiting for the scheduler", waits=True)
                if time.monotonic() > deadline:
                    raise ExecutorError(
                        f"no Dask scheduler answers: {why}; check its address and that it is running"
                    ) from why
                time.sleep(TICK_S)
            except (TypeError, ValueError, RuntimeError) as why:
                advice = "check its address, its version and the TLS files"
                raise ExecutorError(f"cannot connect to the Dask scheduler: {why}; {advice}") from why

    def _set_up(self, client: Client, on_progress: ProgressCallback) -> bool:
        """Set up a new or restarted scheduler. Return True."""
        client.run_on_scheduler(_abandon_at_first_death)
        client.subscribe_topic(TOPIC, lambda event: self._on_event(event, on_progress))
        return True

    def _on_event(self, event: tuple[float, dict[str, Any]], on_progress: ProgressCallback) -> None:
        message = event[1]
        job = self.jobs.get(message["job"])
        if job is not None:
            job.cell_id = message["cell"]
            on_progress(message["line"], waits=message["waits"])

    def _submit(
        self,
        client: Client,
        measurer: Measurer,
        waiting: list[list[Cell]],
        changed: threading.Event,
        sweep_id: str,
        on_progress: ProgressCallback,
    ) -> None:
        """Submit as many groups as there are free slots, in order, skipping groups for which no slot is free."""
        slots = _slots(client)
        for job in self.jobs.values():
            slots[slot_of(job.group)] = slots.get(slot_of(job.group), 0) - 1
        for place in reversed(range(len(waiting))):
            slot = slot_of(waiting[place])
            if slots.get(slot, 0) >= 1:
                slots[slot] -= 1
                group, id = waiting[place], f"{TOPIC}-{waiting[place][0].group_id}-{uuid.uuid4().hex[:8]}"
                arguments = (measurer, group, self.environment.sources, id, sweep_id)
                future = client.submit(measure_on_worker, *arguments, key=id, resources={slot: 1})
                self.jobs[id] = Job(waiting.pop(place), future)
                future.add_done_callback(lambda _: changed.set())
            elif not any(slots.values()):
                break
        if waiting and not self.jobs:
            slot = slot_of(waiting[-1])
            on_progress(
                f'waiting: no worker has a slot for the remaining groups; start one with --resources "{slot}=1"',
                waits=True,
            )

    def _take(self, job: Job, on_row: RowCallback, on_progress: ProgressCallback) -> list[list[Cell]]:
        """Pass on the rows of a finished job. Return the groups that must be measured again."""
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
        """Handle a worker's death: after MAX_ATTEMPTS deaths abandon the cell it was measuring, or the whole group.

        Return the groups that must be measured again.
        """
        culprits = [cell for cell in job.group if job.cell_id in (None, cell.id)]
        name = job.cell_id or " ".join(cell.id for cell in job.group)
        self.deaths[name] += 1
        if self.deaths[name] < MAX_ATTEMPTS:
            on_progress(f"a worker died; its group is measured again: {culprits[0].group_label}")
            return [list(job.group)]
        reason = f"{MAX_ATTEMPTS} workers died while measuring it; it is abandoned"
        for cell in culprits:
            row = Measurement.for_cell(cell, status=Status.ERROR, reason=reason, attempt=MAX_ATTEMPTS)
            on_row(row, self.environment)
        return [[cell for cell in job.group if cell not in culprits]]


def slot_of(group: Sequence[Cell]) -> str:
    """Return the resource that a group takes."""
    return SLOTS[device_of(group)]


def _slots(client: Client) -> dict[str, float]:
    """Return how many of each resource the workers declare."""
    slots: dict[str, float] = {}
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        for name, number in worker["resources"].items():
            slots[name] = slots.get(name, 0) + number
    return slots


def _abandon_at_first_death(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 0
