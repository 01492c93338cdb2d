"""The measurer of suites that do not train: which processes run, in which order, and how their values become rows.

On the CPU a cell's gradient, tensor memory and resident memory are each measured in a process of their own. On CUDA
one process measures the first two, and resident memory, most of it the driver's, is not measured. Then the cells of a
group are timed together in one process. A cell whose process fails takes that status and is not measured further.
"""

import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.registry import CONTENDERS, decline, missing
from symplectic_bench.data.tables import cache_table, table_file
from symplectic_bench.measure.floor import Floor, floor_tensor_bytes
from symplectic_bench.measure.gradient_error import measure_gradient_error, measure_gradient_errors
from symplectic_bench.measure.resident_memory import measure_resident_memory
from symplectic_bench.measure.tensor_memory import measure_errors_and_memory, measure_tensor_memory
from symplectic_bench.measure.wall_time import measure_wall_time
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.references import compute_reference
from symplectic_bench.rows.record import Measurement
from symplectic_bench.run import processes as process
from symplectic_bench.run.executors.executor import ProgressCallback
from symplectic_bench.run.processes import CallOutcome, Limits
from symplectic_bench.run.users_problems import describe
from symplectic_bench.spec.cell import Cell, group_cells
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import SuiteError

Values = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class MeasurementSettings:
    """Settings of measurements that do not train.

    cell_timeout_s limits each part of a cell's measurement, and each gradient when a group is timed. measure names what
    is measured besides errors and counts: "memory", "time"; if it is empty, the errors of a group are measured in one
    process. repeats is the number of timed rounds (fewer if many take too long), warmup that of untimed ones before.
    repeats_compared: the rounds of groups of several cells; repeats if it is None. cache_dir keeps data and reference
    gradients between runs. cores: see Limits. problems are the users' problems with the digests of their sources; a
    cell of another source is not measured.
    """

    cell_timeout_s: float
    repeats: int
    warmup: int
    cache_dir: Path
    measure: Sequence[str] = ("memory", "time")
    cores: tuple[int, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    repeats_compared: int | None = None

    def rounds(self, cells: int) -> int:
        """Return the number of timed rounds of a group of so many cells."""
        return self.repeats if cells == 1 else self.repeats_compared or self.repeats


@dataclass
class Row:
    """A cell's row while it is being measured."""

    cell: Cell
    status: Status = Status.OK
    reason: str | None = None
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    @property
    def counts(self) -> Counts:
        return Counts(**{f.name: self.measured.get(f.name) for f in fields(Counts)})

    def fail(self, status: Status, reason: str | None) -> None:
        self.status, self.reason = status, reason

    def take(self, values: Values) -> None:
        for value in values:
            self.reason = value.get("reason", self.reason)
            self.measured |= {name: found for name, found in value.items() if name != "reason"}

    def finished(self) -> Measurement:
        return Measurement.for_cell(self.cell, status=self.status, reason=self.reason, **self.measured)


@dataclass(frozen=True)
class CellMeasurer:
    """Measures errors, memory and time. Rows are yielded when their group is done."""

    settings: MeasurementSettings
    references: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)
    """By problem_id, so that each reference is computed once: None, or why it is missing."""

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return group_cells(cells)

    def within(self, folder: Path) -> "CellMeasurer":
        return CellMeasurer(replace(self.settings, cache_dir=folder / "cache"))

    def prepare(self, cells: Sequence[Cell], on_progress: ProgressCallback) -> None:
        """Do nothing: a group's data is prepared when it is measured."""

    def measure(
        self, group: Sequence[Cell], cores: tuple[int, ...], on_progress: ProgressCallback
    ) -> Iterator[Measurement]:
        settings = replace(self.settings, cores=cores)
        rows = [Row(cell) for cell in group]
        for row in rows:
            declined = decline(row.cell) or missing(row.cell)
            if declined is not None:
                row.fail(Status.SKIPPED, declined)
        if changed := changed_source(group[0].problem, settings):
            for row in rows:
                row.fail(Status.ERROR, changed)
        alive = [row for row in rows if row.ok]
        if alive:
            label = alive[0].cell.group_label
            no_reference = self._reference(alive[0].cell, settings, on_progress)
            if not settings.measure:
                on_progress(label)
                errors_of_group(alive, settings, no_reference)
            else:
                for row in alive:
                    on_progress(f"{label}: {row.cell.name}", row.cell)
                    measure_cell(row, settings, no_reference)
            if "time" in settings.measure:
                on_progress(f"{label}: time")
                time_group([row for row in alive if row.ok], settings)
        for row in rows:
            yield row.finished()

    def _reference(self, cell: Cell, settings: MeasurementSettings, on_progress: ProgressCallback) -> str | None:
        """Prepare the cell's data and reference gradient. Return why there is no reference, or None if there is one."""
        limits = Limits(settings.cell_timeout_s, cores=settings.cores)
        if not settings.cache_dir.is_dir():  # somebody has removed it, and the references in it
            settings.cache_dir.mkdir(parents=True)
            self.references.clear()
        data = PROBLEMS[cell.problem].table(cell.sizes_dict)
        if data is not None and not os.path.exists(table_file(data, settings.cache_dir)):
            on_progress(f"data: {data}")
            process.run(cache_table, (data, settings.cache_dir), limits)  # if it fails, every cell reports it
        if cell.problem_id not in self.references:
            on_progress(f"{cell.group_label}: reference")
            outcome = process.run(compute_reference, (cell, settings.cache_dir), limits)
            why = f"the reference failed ({outcome.status}): {outcome.reason}"
            self.references[cell.problem_id] = outcome.values[0] if outcome.ok else why
        return self.references[cell.problem_id]


def changed_source(problem: str, settings: MeasurementSettings) -> str | None:
    """Return why a user's problem is not the one that the run began with, or None.

    Its module may have been edited since, or may be another one on this worker.
    """
    if problem not in settings.problems:
        return None
    try:
        found = describe(problem, settings.cell_timeout_s).source
    except SuiteError as why:
        return str(why).partition("\n")[0]
    changed = f"the source of {problem} is not that with which the run began: run again"
    return None if found == settings.problems[problem] else changed


def errors_of_group(rows: list[Row], settings: MeasurementSettings, no_reference: str | None) -> None:
    """Measure the errors of a group's cells. If one kills the process, the rest are measured in another."""
    while rows:
        cells = [row.cell for row in rows]
        outcome = process.run(measure_gradient_errors, (cells, settings.cache_dir), _limits(cells, settings))
        begun = [value["cell"] for value in outcome.values if value.get("begins")]
        for i in begun:
            own = [value for value in outcome.values if value["cell"] == i]
            values = [{k: v for k, v in x.items() if k != "cell"} for x in own if not {"begins", "ends"} & set(x)]
            failed = next((x for x in values if "status" in x), None)
            if failed is not None:
                end = CallOutcome(Status(failed["status"]), failed["reason"])
            else:
                end = CallOutcome() if any("ends" in x for x in own) else outcome
            _take_errors(rows[i], [x for x in values if "status" not in x], end, no_reference)
        if not begun:
            for row in rows:
                row.fail(outcome.status, outcome.reason)
            return
        rows = rows[len(begun) :]


def _take_errors(row: Row, values: list[dict[str, Any]], end: CallOutcome, no_reference: str | None) -> None:
    """Put the values of a process, even of one that ended early, into the row."""
    row.take(values)
    if not values:
        return row.fail(end.status, end.reason)
    row.take([{"stages": METHODS[row.cell.method].stages}])
    if not end.ok:  # the gradient is known, and so is all that was measured before the end
        why = f"its process ended before ({end.status}): {end.reason}"
        late = [error for error in ("error_true", "error_discrete") if error not in row.measured]
        row.take([{f"{error}_reason": why for error in late if f"{error}_reason" not in row.measured}])
    if no_reference is not None:
        row.take([{"error_true_reason": no_reference}])


def measure_cell(row: Row, settings: MeasurementSettings, no_reference: str | None) -> None:
    """Measure the gradient's errors and, if asked for, tensor and resident memory, until one of them fails."""
    cell, cache_dir = row.cell, settings.cache_dir
    limits, with_memory, memory = _limits([cell], settings), "memory" in settings.measure, None
    if with_memory and cell.device == "cuda":
        outcome, memory = _split(process.run(measure_errors_and_memory, (cell, cache_dir), limits))
    else:
        outcome = process.run(measure_gradient_error, (cell, cache_dir), limits)
    _take_errors(row, outcome.values, outcome, no_reference)
    if not row.ok or not with_memory:
        return
    outcome = memory or process.run(measure_tensor_memory, (cell, cache_dir, row.counts), limits)
    row.take(outcome.values)
    if not outcome.ok:
        return row.fail(outcome.status, outcome.reason)
    row.take([_memory_floor(row)])
    if cell.device == "cuda":
        return
    outcome = process.run(measure_resident_memory, (cell, cache_dir), limits)
    row.take(outcome.values)
    if not outcome.ok:
        row.fail(outcome.status, outcome.reason)


def _split(both: CallOutcome) -> tuple[CallOutcome, CallOutcome | None]:
    """Return the outcomes of the errors and of the memory; None for that of memory if the process did not get there."""
    ends = next((i for i, value in enumerate(both.values) if "ends" in value), None)
    if ends is None:
        return both, None
    return CallOutcome(values=both.values[:ends]), CallOutcome(both.status, both.reason, both.values[ends + 1 :])


def _limits(cells: Sequence[Cell], settings: MeasurementSettings) -> Limits:
    """Return the limits for a process that computes these cells of one group."""
    spawned = any(CONTENDERS[cell.contender].framework == "jax" for cell in cells)
    cell = cells[0]
    return Limits(settings.cell_timeout_s, spawned, cell.threads, cell.seed, settings.cores)


def _memory_floor(row: Row) -> dict[str, Any]:
    steps = row.measured["steps_accepted"]
    if steps is None:
        return {}
    floor = Floor(**{f.name: row.measured[f.name] for f in fields(Floor)})
    stages = METHODS[row.cell.method].stages
    components = row.cell.sizes_dict.get("components", 1) if PROBLEMS[row.cell.problem].stacked else 1
    assert isinstance(components, int), "a family's sizes have the types of their defaults"
    return {"floor_tensor_bytes": floor_tensor_bytes(floor, row.cell.gradient, steps, stages, components)}


def time_group(rows: list[Row], settings: MeasurementSettings) -> None:
    """Time the rows alternately. If one kills the process, it is removed and the others are timed again."""
    while rows:
        cells = [row.cell for row in rows]
        args = (cells, settings.cache_dir, settings.warmup, settings.rounds(len(cells)))
        outcome = process.run(measure_wall_time, args, _limits(cells, settings))
        if outcome.ok or any("timed" in value for value in outcome.values):
            return _take_times(rows, outcome)
        last = outcome.values[-1] if outcome.values else {}
        for row in [rows[last["cell"]]] if last.get("begins") else rows:
            row.fail(outcome.status, outcome.reason)
        rows = [row for row in rows if row.ok]


def _take_times(rows: list[Row], outcome: CallOutcome) -> None:
    values = outcome.values
    bare, captured = [value for value in values if "f_call_s" in value], _captured(outcome)
    for i, row in enumerate(rows):
        own = [value for value in values if value.get("cell") == i]
        failed = [value for value in own if "status" in value]
        compiling = [{"compile_s": value["compile_s"]} for value in own if "compile_s" in value]
        samples = [value for value in own if "forward_s" in value or "total_s" in value]
        if failed:
            row.fail(Status(failed[0]["status"]), failed[0]["reason"])
        else:
            floors = _time_floor(row.counts, bare) | _captured_floor(row.counts, captured)
            row.take([*compiling, _times(samples), floors])


def _times(samples: list[dict[str, Any]]) -> dict[str, Any]:
    if "total_s" in samples[0]:
        totals = [sample["total_s"] for sample in samples]
        return {"total_s": statistics.median(totals), "total_samples_s": totals}
    forward, backward = ([sample[name] for sample in samples] for name in ("forward_s", "backward_s"))
    cost: dict[str, Any] = {}
    if all("backward_cpu_s" in sample for sample in samples):
        cost["backward_cpu_samples_s"] = [sample["backward_cpu_s"] for sample in samples]
        cost["backward_waits"] = min(sample["backward_waits"] for sample in samples)
    return cost | {
        "forward_s": statistics.median(forward),
        "backward_s": statistics.median(backward),
        "total_s": statistics.median(f + b for f, b in zip(forward, backward, strict=True)),
        "forward_samples_s": forward,
        "backward_samples_s": backward,
    }


def _time_floor(counts: Counts, bare: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the times of a bare f call, of one with its VJP, and of the bare calls in these counts."""
    f_call_s, vjp_call_s = (statistics.median(value[name] for value in bare) for name in ("f_call_s", "vjp_call_s"))
    bare_calls: dict[str, Any] = {"f_call_s": f_call_s, "vjp_call_s": vjp_call_s}
    for name in ("f_call_cpu", "vjp_call_cpu"):
        if all(f"{name}_s" in value for value in bare):
            bare_calls[f"{name}_samples_s"] = [value[f"{name}_s"] for value in bare]
    if counts.floor_calls is None:
        return bare_calls
    f_calls, vjps = counts.floor_calls
    return {**bare_calls, "floor_s": f_calls * f_call_s + vjps * vjp_call_s}


def _captured(outcome: CallOutcome) -> dict[str, Any]:
    """Return what is known of the captured bare calls: nothing on the CPU."""
    names = ("f_call_captured_s", "vjp_call_captured_s", "floor_captured_reason")
    found = {name: value[name] for value in outcome.values for name in names if name in value}
    if found or outcome.ok:
        return found
    return {"floor_captured_reason": f"capturing the bare calls ended the process ({outcome.status}): {outcome.reason}"}


def _captured_floor(counts: Counts, captured: dict[str, Any]) -> dict[str, Any]:
    """Return the times of captured bare calls, and of the captured bare calls in these counts."""
    if counts.floor_calls is None or "f_call_captured_s" not in captured:
        return captured
    f_calls, vjps = counts.floor_calls
    floor_s = f_calls * captured["f_call_captured_s"] + vjps * captured["vjp_call_captured_s"]
    return {**captured, "floor_captured_s": floor_s}
