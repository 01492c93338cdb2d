"""A suite's trials held against its rows: what was wanted, what was measured, and why it is not known.

A cell that has no row, failed or lacks the number leaves its trial open: nothing is met without a measurement.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Any, Generic, TypeVar

from symplectic_bench.analysis.exponent import FEWEST, fit
from symplectic_bench.analysis.summary import FLOOR, Line
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import axes
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Trial

STAGES = "stages"
"""An axis that is the method's."""


class Outcome(StrEnum):
    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """One trial at one cell, or of several. note says why there is no number, or how it was come by.

    cells are those behind the number; axis is what they differ in, where they are several of a series; half_width is
    that of a fitted exponent's confidence interval.
    """

    trial: Trial
    group: str
    cell: str
    measured: float | None
    note: str = ""
    cells: tuple[Cell, ...] = ()
    axis: str = ""
    half_width: float | None = None

    @property
    def outcome(self) -> Outcome:
        if self.measured is None:
            return Outcome.NOT_MEASURED
        return Outcome.MET if self.trial.allows(self.measured, self.axis) else Outcome.NOT_MET


T = TypeVar("T", bound=Trial)


@dataclass(frozen=True)
class Judgement(Generic[T]):
    """A trial with its verdicts."""

    trial: T
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """Missed where one cell misses, and open where one is: met is only what is met everywhere."""
        found = {verdict.outcome for verdict in self.verdicts}
        return next(one for one in (Outcome.NOT_MET, Outcome.NOT_MEASURED, Outcome.MET) if one in found)

    @property
    def measured(self) -> list[float]:
        return [verdict.measured for verdict in self.verdicts if verdict.measured is not None]

    @property
    def worst(self) -> float | None:
        """The largest, or the least where much is wanted."""
        return (max if self.trial.at_least is None else min)(self.measured, default=None)

    def count(self, outcome: Outcome) -> int:
        return sum(verdict.outcome is outcome for verdict in self.verdicts)


class Unmeasured(ValueError):
    """A number that is not there; the message says why."""


@dataclass(frozen=True)
class Court:
    """The cells that may be meant, and the lines of the summary by cell id."""

    cells: Sequence[Cell]
    lines: Mapping[str, Line]
    varied: Mapping[str, set[str]]
    """The sizes that tell a problem's cells apart."""

    def line(self, cell: Cell) -> Line | None:
        return self.lines.get(cell.id)

    def named(self, name: str, cell: Cell) -> Line | None:
        """The line of that contender and gradient in the cell's group."""
        return self._by_name.get((cell.group_id, name))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Line]:
        lines = reversed(list(self.lines.values()))  # of several the first counts
        return {(line["group_id"], line["name"]): line for line in lines}

    def axes(self, cell: Cell) -> dict[str, Any]:
        """The cell's axes and sizes, and its method's number of stages where that is known."""
        line = self.line(cell)
        stages = None if line is None else line[STAGES]
        return axes(cell) | ({} if stages is None else {STAGES: int(stages)})


def judge(trials: Sequence[T], cells: Sequence[Cell], lines: Sequence[Line]) -> list[Judgement[T]]:
    """Every trial at every one of the cells that it means, in their order. lines are those of a summary."""
    court = Court(cells, {line["cell_id"]: line for line in lines}, varied_sizes(cells))
    return [Judgement(trial, tuple(_verdicts(trial, court))) for trial in trials]


def _verdicts(trial: Trial, court: Court) -> list[Verdict]:
    meant = [cell for cell in court.cells if _is_meant(cell, trial)]
    if trial.powers is not None:
        return [verdict for axis in trial.powers for verdict in _powers(trial, axis, meant, court)]
    if trial.along is None:
        verdicts = [_verdict(trial, cell, court) for cell in meant]
    else:
        every = _series(meant, trial.along, court)
        verdicts = [verdict for one in every for verdict in _changes(trial, trial.along, one, court)]
    return verdicts or [Verdict(trial, "", "", None, "the suite has no such cell at this scale")]


def _verdict(trial: Trial, cell: Cell, court: Court) -> Verdict:
    label, line = short_label(cell, court.varied), court.line(cell)
    try:
        own = _measured(trial, line)
        if trial.over is None:
            return Verdict(trial, label, cell.name, own, _origin(trial, line, court), (cell,))
        other = court.named(trial.over, cell)
        try:
            unit = _measured(trial, other)
        except Unmeasured as why:
            raise Unmeasured(f"{trial.over}: {why}") from why
        _require_one_machine([line, other])
    except Unmeasured as why:
        return Verdict(trial, label, cell.name, None, str(why), (cell,))
    over = replace(cell, **dict(zip(("contender", "gradient"), trial.over.split(" ", 1), strict=True)))
    return Verdict(trial, label, f"{cell.name} over {trial.over}", _quotient(own, unit), "", (cell, over))


def _quotient(value: float, unit: float) -> float:
    return value / unit if unit else math.inf if value else 1.0


def _changes(trial: Trial, axis: str, cells: Sequence[Cell], court: Court) -> list[Verdict]:
    """From each of a series' cells to the next."""
    if len(cells) == 1:
        label, why = (
            short_label(cells[0], court.varied, without=axis),
            f"there is only one value of {axis} at this scale",
        )
        return [Verdict(trial, label, cells[0].name, None, why, tuple(cells), axis)]
    return [_compared(trial, axis, pair, court, _change) for pair in pairwise(cells)]


def _powers(trial: Trial, axis: str, cells: Sequence[Cell], court: Court) -> list[Verdict]:
    """One exponent for each series that is long enough."""
    long = [one for one in _series(cells, axis, court) if len({_position(cell, axis, court) for cell in one}) >= FEWEST]
    if not long:
        why = f"an exponent takes {FEWEST} values of {axis}, and there are fewer at this scale"
        return [Verdict(trial, "", "", None, why, axis=axis)]
    return [_compared(trial, axis, one, court, _fit) for one in long]


Points = Sequence[tuple[float, float]]
Compare = Callable[[Trial, Points], tuple[float, float | None]]


def _compared(trial: Trial, axis: str, cells: Sequence[Cell], court: Court, compare: Compare) -> Verdict:
    """What the comparison makes of the cells' numbers along the axis."""
    x = [_position(cell, axis, court) for cell in cells]
    label = short_label(cells[0], court.varied, without=axis)
    lines, name = [court.line(cell) for cell in cells], f"{cells[0].name}, {axis} {x[0]:g} to {x[-1]:g}"
    try:
        y = [_measured(trial, line) for line in lines]
        _require_one_machine(lines)
        grown, half_width = compare(trial, list(zip(x, y, strict=True)))
    except Unmeasured as why:
        return Verdict(trial, label, name, None, str(why), tuple(cells), axis)
    note = next(filter(None, (_origin(trial, line, court) for line in lines)), "")
    return Verdict(trial, label, name, grown, note, tuple(cells), axis, half_width)


def _change(trial: Trial, points: Points) -> tuple[float, None]:
    (x0, y0), (x1, y1) = points
    if trial.change == "per_unit":
        return (y1 - y0) / (x1 - x0), None
    _require_positive(trial, points)
    return math.log(y1 / y0) / math.log(x1 / x0), None


def _fit(trial: Trial, points: Points) -> tuple[float, float]:
    _require_positive(trial, points)
    found = fit(points)
    return found.power, found.half_width


def _require_positive(trial: Trial, points: Points) -> None:
    least = min(y for _, y in points)
    if least <= 0:
        raise Unmeasured(f"{trial.measure} is {least:g} there, which is no power of anything")


def _require_one_machine(lines: Sequence[Line | None]) -> None:
    if len({line["environment"] for line in lines if line is not None}) > 1:
        raise Unmeasured("its cells were measured on different machines, which only --mix-machines compares")


def _position(cell: Cell, axis: str, court: Court) -> float:
    value = court.axes(cell).get(axis)
    if not isinstance(value, int | float):
        raise Unmeasured(f"{axis} is {value!r} there, and what cells are compared along is a number")
    return value


def _measured(trial: Trial, line: Line | None) -> float:
    """The trial's number in a line of the summary. Raises Unmeasured."""
    if line is None:
        raise Unmeasured("it has no row yet")
    if line["status"] != Status.OK:
        raise Unmeasured(f"{line['status']}: {line['reason']}" if line["reason"] else str(line["status"]))
    if line["forward_disagrees"] and trial.measure != "forward_error":
        raise Unmeasured("its forward solution disagrees with the reference")
    value = line.get(trial.measure)
    if value is None:
        raise Unmeasured(line["reason"] or f"{trial.measure} was not measured")
    return value


def _origin(trial: Trial, line: Line | None, court: Court) -> str:
    """Where a number comes from, if not from a measurement of the cell itself."""
    if line is None:
        return ""
    of_memory = trial.measure in ("memory_over_floor", "peak_tensor_bytes", "peak_states")
    if of_memory and line["peak_tensor_source"] == "fit":
        return "peak fitted to fewer steps"
    floor = {"group_id": line["group_id"], "name": f"{FLOOR} {line['gradient']}", "comparable": True}
    measured = any(all(other[key] == value for key, value in floor.items()) for other in court.lines.values())
    return "" if measured or not trial.measure.endswith("over_floor") else "over an estimate of the floor"


def _is_meant(cell: Cell, trial: Trial) -> bool:
    own = axes(cell)
    return all(axis in own and own[axis] in wanted for axis, wanted in trial.cells.items())


def _series(cells: Sequence[Cell], axis: str, court: Court) -> list[list[Cell]]:
    """The cells that differ in this axis alone, together and in its order; those without it are left out."""
    found: dict[object, list[Cell]] = {}
    for cell in cells:
        own = court.axes(cell)
        if own.pop(axis, None) is None:
            continue
        own.pop("method" if axis == STAGES else STAGES, None)
        found.setdefault(tuple(sorted(own.items())), []).append(cell)
    return [sorted(series, key=lambda cell: _position(cell, axis, court)) for series in found.values()]


# Labels: a group's own is long, and most of its sizes are the same in all of a problem's cells.


def varied_sizes(cells: Sequence[Cell]) -> dict[str, set[str]]:
    values: dict[str, dict[str, set[object]]] = {}
    for cell in cells:
        for name, value in cell.sizes:
            values.setdefault(cell.problem, {}).setdefault(name, set()).add(value)
    return {problem: {name for name, found in sizes.items() if len(found) > 1} for problem, sizes in values.items()}


def short_label(cell: Cell, varied: Mapping[str, set[str]], without: str = "") -> str:
    """The group's label with only those sizes that tell the problem's cells apart, and not the axis `without`."""
    told = varied.get(cell.problem, set()) - {without}
    label = replace(cell, sizes=tuple(size for size in cell.sizes if size[0] in told)).group_label.replace("()", "")
    if without == STAGES:
        return label.replace(f", {cell.method} ", ", ")
    return label.replace(f" {cell.steps} steps", "") if without == "steps" else label
