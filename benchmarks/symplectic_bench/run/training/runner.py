"""The measurer of suites that train: the contenders of a group take turns of a few iterations, each in a new process.

Every turn ends with a checkpoint on disk, so a crash costs at most one turn. Since contenders alternate, a machine that
slows down affects them all alike.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.registry import TRAINERS, missing
from symplectic_bench.data.errors import MissingData
from symplectic_bench.rows.record import Measurement
from symplectic_bench.run import processes as process
from symplectic_bench.run.executors.executor import ProgressCallback
from symplectic_bench.run.processes import CallOutcome, Limits
from symplectic_bench.run.training.checkpoint import Log
from symplectic_bench.run.training.turn import evaluate, measure_memory, train
from symplectic_bench.spec.cell import FIRST_ITERATIONS, ITERATIONS, Cell, group_cells
from symplectic_bench.spec.status import Status
from symplectic_bench.tasks import TASKS

TURN = 10
"""Iterations per turn."""

EVALUATION = 20
"""Time limit of an evaluation, as a multiple of an iteration's."""

PREPARATION_S = 3600.0
"""Time limit for reading and preparing data, once."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of training runs.

    iteration_timeout_s limits each iteration. checkpoints is the folder of unfinished runs. longest maps each group of
    the suite's cells, finished or not, to its largest number of iterations, for which networks are evaluated; None if
    none is. cores: see Limits. fresh names a run that starts over, so that no other machine resumes from its own
    checkpoint of an earlier run.
    """

    iteration_timeout_s: float
    cache_dir: Path
    checkpoints: Path
    data_dir: Path | None = None
    longest: Mapping[str, int] | None = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    fresh: str = ""


@dataclass
class TrainingRun:
    """The training of one cell."""

    cell: Cell
    settings: TrainingSettings
    evaluated: bool
    status: Status = Status.OK
    reason: str | None = None
    log: Log = field(default_factory=Log)
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> int:
        """The number of iterations to do."""
        return iterations(self.cell)

    @property
    def over(self) -> bool:
        """Whether it has failed or has done all iterations."""
        return self.status is not Status.OK or self.log.iterations >= self.wanted

    @property
    def file(self) -> Path:
        """The path of its checkpoint."""
        return self.settings.checkpoints / f"{self.cell.id}.pt"

    def turn(self) -> None:
        """Train up to the next multiple of TURN iterations; do nothing if an earlier run's checkpoint is further.

        On the CPU the first turn starts with a memory measurement of the first iteration, whose weights all contenders
        share. On CUDA training itself measures the second.
        """
        if not self.log.memory and (self.cell.device == "cpu" or self.wanted == 1):
            self._continue(measure_memory)
        if self.status is Status.OK:
            self._continue(train, min(self.wanted, (self.log.iterations // TURN + 1) * TURN))

    def restart_if_lost(self) -> None:
        """Start over if the checkpoint has been removed: nothing else has the network."""
        if self.status is Status.OK and self.log.iterations and not self.file.exists():
            self.log = Log()

    def finish(self) -> Measurement:
        """Evaluate the network if required, and return the row."""
        if self.status is Status.OK and self.evaluated:
            outcome = self._run(evaluate, timeout_factor=EVALUATION)
            if outcome.ok:
                self.measured["metrics"] = outcome.values[0]
            else:  # the training and its measurements are still valid
                self.reason = f"not evaluated ({outcome.status}): {outcome.reason}"
        return Measurement.for_cell(
            self.cell,
            status=self.status,
            reason=self.reason or TRAINERS[self.cell.contender].remark or None,
            stages=METHODS[self.cell.method].stages,
            **summarize_log(self.log),
            **self.measured,
        )

    def fail(self, outcome: CallOutcome) -> None:
        """End the run with the outcome of a failed call."""
        self.status, self.reason = outcome.status, outcome.reason

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint, once the row is on disk. After an error it stays: the retry resumes from it."""
        if self.status is not Status.ERROR:
            self.file.unlink(missing_ok=True)

    def _continue(self, function: Callable[..., Any], *args: Any) -> None:
        outcome = self._run(function, *args)
        if outcome.ok:
            self.log = Log(**outcome.values[-1])
        else:
            self.fail(outcome)

    def _run(self, function: Callable[..., Any], *args: Any, timeout_factor: int = 1) -> CallOutcome:
        cell, settings = self.cell, self.settings
        timeout_s = timeout_factor * settings.iteration_timeout_s
        limits = Limits(timeout_s, threads=cell.threads, seed=cell.seed, cores=settings.cores)
        return process.run(function, (cell, settings.cache_dir, self.file, *args), limits)


@dataclass(frozen=True)
class TrainingMeasurer:
    """Trains networks. A row is yielded when its cell is done.

    Only the cells with the most iterations in a group are evaluated at the end: the others train too briefly.
    """

    settings: TrainingSettings

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return group_cells(cells)

    def within(self, folder: Path) -> "TrainingMeasurer":
        """Return the same measurer with cache and checkpoints in `folder`.

        If the folder is local to a machine, another machine starts over with a training that this one cannot finish.
        """
        checkpoints = folder / "checkpoints" / self.settings.fresh
        return TrainingMeasurer(replace(self.settings, cache_dir=folder / "cache", checkpoints=checkpoints))

    def prepare(self, cells: Sequence[Cell], on_progress: ProgressCallback) -> None:
        for group in group_cells(cells):
            prepare(group[0], self.settings, on_progress)

    def measure(
        self, group: Sequence[Cell], cores: tuple[int, ...], on_progress: ProgressCallback
    ) -> Iterator[Measurement]:
        settings = replace(self.settings, cores=cores)
        known = (settings.longest or {}).get(group[0].group_id, 0)
        most = None if settings.longest is None else max(known, *(iterations(cell) for cell in group))
        runs = [TrainingRun(cell, settings, evaluated=iterations(cell) == most) for cell in group]
        for run in runs:
            if reason := missing(run.cell):
                run.fail(CallOutcome(Status.SKIPPED, reason))
        alive = list(runs)
        while alive:
            for run in list(alive):
                if not run.over:
                    on_progress(f"{run.cell.group_label}: {run.cell.name}, iteration {run.log.iterations}", run.cell)
                    run.turn()
                run.restart_if_lost()
                if run.over:
                    yield run.finish()
                    run.drop_checkpoint()
                    alive.remove(run)


def longest(cells: Sequence[Cell]) -> dict[str, int]:
    """Return the largest number of iterations of any cell, by group."""
    return {group[0].group_id: max(map(iterations, group)) for group in group_cells(cells)}


def iterations(cell: Cell) -> int:
    """Return the number of iterations that a cell trains for."""
    return int(cell.sizes_dict[ITERATIONS])


def prepare(cell: Cell, settings: TrainingSettings, on_progress: ProgressCallback) -> None:
    """Prepare the cell's data in the cache. Raises MissingData, with the reason, if it is unavailable."""
    on_progress(f"{cell.group_label}: data")
    outcome = process.run(_prepare, (cell, settings.cache_dir, settings.data_dir), Limits(PREPARATION_S))
    why = outcome.values[0] if outcome.ok else f"{cell.problem}: data ({outcome.status}): {outcome.reason}"
    if why is not None:
        raise MissingData(why)


def _prepare(cell: Cell, cache_dir: Path, data_dir: Path | None) -> str | None:
    try:
        TASKS[cell.problem].prepare(cell.sizes_dict, cache_dir, data_dir)
    except MissingData as why:
        return str(why)
    return None


def summarize_log(log: Log) -> dict[str, Any]:
    """Return the row's fields for a log: medians over the first FIRST_ITERATIONS, or over all if there are fewer.

    Times exclude cold iterations, the first of each process, which are slower.
    """
    memory = {**log.memory, "peak_tensor_source": "exact"} if log.memory else {}
    if not log.iterations:
        return memory
    first = range(min(FIRST_ITERATIONS, log.iterations))
    warm = [i for i in first if i not in log.starts] or list(first)
    seen = {name: [log.counts[i][name] for i in first] for name in log.counts[0]}
    known = {name: [n for n in numbers if n is not None] for name, numbers in seen.items()}
    counts = {name: statistics.median_low(numbers) for name, numbers in known.items() if len(numbers) == len(first)}
    return {
        **counts,
        **{
            name: statistics.median(getattr(log, name)[i] for i in warm)
            for name in ("forward_s", "backward_s", "total_s")
        },
        "total_samples_s": log.total_s,
        "cold_iterations": [i for i in log.starts if i < log.iterations],
        "loss": log.losses[-1],
        "losses": log.losses,
        "f_calls_samples": _totals(log, "f_calls_forward", "f_calls_backward"),
        "steps_samples": _totals(log, "steps_accepted"),
        "peak_rss_bytes": log.peak_rss_bytes or None,
        **memory,
    }


def _totals(log: Log, *names: str) -> list[int] | None:
    values = [[counts[name] for name in names] for counts in log.counts]
    known = [[n for n in one if n is not None] for one in values]
    return [sum(one) for one in known] if known == values else None
