"""Trains cells: contenders of a group take turns of some iterations, each turn in a process of its own.

What a run has done is on disk after every turn, so that whatever ends the program costs the turn at hand. A machine
that slows down slows all contenders alike.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from symplectic_adjoint import METHODS
from symplectic_bench.contenders import TRAINERS, missing
from symplectic_bench.data.missing_data import MissingData
from symplectic_bench.rows.record import Measurement
from symplectic_bench.run import processes as process
from symplectic_bench.run.executors.executor import ProgressCallback
from symplectic_bench.run.processes import CallOutcome, Limits
from symplectic_bench.run.training.checkpoint import Log
from symplectic_bench.run.training.turn import evaluate, measure_memory, train
from symplectic_bench.spec.cell import FIRST_ITERATIONS, ITERATIONS, Cell
from symplectic_bench.spec.status import Status
from symplectic_bench.tasks import TASKS

TURN = 10
"""Iterations of a turn."""

EVALUATION = 20
"""How many times as long as an iteration an evaluation may take."""

PREPARATION_S = 3600.0
"""How long data may take to be read and prepared, once."""


@dataclass(frozen=True)
class TrainingSettings:
    """iteration_timeout_s limits each iteration. checkpoints is where runs under way are kept. longest has the most
    iterations of any of the suite's cells by group, whatever is left of them to do. cores: see Limits. fresh: a name
    for a run that begins anew, so that no other machine goes on with what it has left of an earlier one.
    """

    iteration_timeout_s: float
    cache_dir: Path
    checkpoints: Path
    data_dir: Path | None = None
    longest: Mapping[str, int] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    fresh: str = ""


@dataclass
class TrainingRun:
    """One cell's training."""

    cell: Cell
    settings: TrainingSettings
    evaluated: bool
    status: Status = Status.OK
    reason: str | None = None
    log: Log = field(default_factory=Log)
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> int:
        return iterations(self.cell)

    @property
    def over(self) -> bool:
        return self.status is not Status.OK or self.log.iterations >= self.wanted

    @property
    def file(self) -> Path:
        return self.settings.checkpoints / f"{self.cell.id}.pt"

    def turn(self) -> None:
        """The next TURN iterations, counted from the start; none where a checkpoint of an earlier run is further.

        Before anything else the memory of the first iteration is measured, whose weights all contenders share.
        """
        if not self.log.memory:
            self._go_on(measure_memory)
        if self.status is Status.OK:
            self._go_on(train, min(self.wanted, (self.log.iterations // TURN + 1) * TURN))

    def finish(self) -> Measurement:
        """The row."""
        if self.status is Status.OK and self.evaluated:
            outcome = self._run(evaluate, patience=EVALUATION)
            if outcome.ok:
                self.measured["metrics"] = outcome.values[0]
            else:  # what was learned and measured is there all the same
                self.reason = f"not evaluated ({outcome.status}): {outcome.reason}"
        return Measurement.for_cell(
            self.cell,
            status=self.status,
            reason=self.reason or TRAINERS[self.cell.contender].remark or None,
            stages=METHODS[self.cell.method].stages,
            **summarised(self.log),
            **self.measured,
        )

    def fail(self, outcome: CallOutcome) -> None:
        self.status, self.reason = outcome.status, outcome.reason

    def drop_checkpoint(self) -> None:
        """Once the row is on disk. After an error, which is tried again, it is gone on with."""
        if self.status is not Status.ERROR:
            self.file.unlink(missing_ok=True)

    def _go_on(self, function: Callable[..., Any], *args: Any) -> None:
        outcome = self._run(function, *args)
        if outcome.ok:
            self.log = Log(**outcome.values[-1])
        else:
            self.fail(outcome)

    def _run(self, function: Callable[..., Any], *args: Any, patience: int = 1) -> CallOutcome:
        cell, settings = self.cell, self.settings
        timeout_s = patience * settings.iteration_timeout_s
        limits = Limits(timeout_s, cell.device, threads=cell.threads, seed=cell.seed, cores=settings.cores)
        return process.run(function, (cell, settings.cache_dir, self.file, *args), limits)


@dataclass(frozen=True)
class TrainingMeasurer:
    """Measurer: networks trained. A row is there as soon as its cell is done.

    Of a group, the cells with the most iterations are evaluated in the end: the others only begin.
    """

    settings: TrainingSettings

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return groups(cells)

    def within(self, folder: Path) -> "TrainingMeasurer":
        """Checkpoints too: where the folder is the machine's own, another one begins anew what this one cannot end."""
        checkpoints = folder / "checkpoints" / self.settings.fresh
        return TrainingMeasurer(replace(self.settings, cache_dir=folder / "cache", checkpoints=checkpoints))

    def prepare(self, cells: Sequence[Cell], on_progress: ProgressCallback) -> None:
        for group in groups(cells):
            prepare(group[0], self.settings, on_progress)

    def measure(
        self, group: Sequence[Cell], cores: tuple[int, ...], on_progress: ProgressCallback
    ) -> Iterator[Measurement]:
        settings = replace(self.settings, cores=cores)
        most = max(settings.longest.get(group[0].group_id, 0), *(iterations(cell) for cell in group))
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
                if run.over:
                    yield run.finish()
                    run.drop_checkpoint()
                    alive.remove(run)


def groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells that differ only in contender, gradient or the number of iterations, in the order of their first."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.group_id, []).append(cell)
    return list(found.values())


def longest(cells: Sequence[Cell]) -> dict[str, int]:
    """The most iterations of any cell, by group."""
    return {group[0].group_id: max(map(iterations, group)) for group in groups(cells)}


def iterations(cell: Cell) -> int:
    return int(cell.sizes_dict[ITERATIONS])


def prepare(cell: Cell, settings: TrainingSettings, on_progress: ProgressCallback) -> None:
    """Have the data that the cell needs in the cache. Raises MissingData with what stands in the way."""
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


def summarised(log: Log) -> dict[str, Any]:
    """The row's fields of what was seen: medians over the FIRST_ITERATIONS, or as many as there are.

    Times leave out the cold iterations, with which a process began: they are slower.
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
        "peak_rss_bytes": log.peak_rss_bytes,
        **memory,
    }


def _totals(log: Log, *names: str) -> list[int] | None:
    values = [[counts[name] for name in names] for counts in log.counts]
    known = [[n for n in one if n is not None] for one in values]
    return [sum(one) for one in known] if known == values else None
