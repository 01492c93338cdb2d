"""The suite's targets held against its rows: what was to be reached, what was, and why it is not known.

A cell that has no row, failed or lacks the number leaves its target open: nothing is met without a measurement.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from benchmarks.cell import Cell
from benchmarks.expansion import axes
from benchmarks.record import Status
from benchmarks.suite import Target
from benchmarks.summary import FLOOR, Line


class Outcome(StrEnum):
    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """One target at one cell, or between two. note says why there is no number, or how it was come by."""

    target: Target
    group: str
    cell: str
    measured: float | None
    note: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.measured is None:
            return Outcome.NOT_MEASURED
        return Outcome.MET if self.measured <= self.target.at_most else Outcome.NOT_MET


@dataclass(frozen=True)
class Judgement:
    """A target with its verdicts."""

    target: Target
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """Missed where one cell misses, and open where one is: met is only what is met everywhere."""
        found = {verdict.outcome for verdict in self.verdicts}
        return next(one for one in (Outcome.NOT_MET, Outcome.NOT_MEASURED, Outcome.MET) if one in found)

    @property
    def worst(self) -> float | None:
        return max((v.measured for v in self.verdicts if v.measured is not None), default=None)

    def count(self, outcome: Outcome) -> int:
        return sum(verdict.outcome is outcome for verdict in self.verdicts)


class Unmeasured(ValueError):
    """A number that is not there; the message says why."""


def judge(targets: Sequence[Target], cells: Sequence[Cell], lines: Sequence[Line]) -> list[Judgement]:
    """Every target at every one of the cells that it means, in their order. lines are those of a summary."""
    known = {line["cell_id"]: line for line in lines}
    varied = _varied_sizes(cells)
    return [Judgement(target, tuple(_verdicts(target, cells, known, varied))) for target in targets]


def _verdicts(
    target: Target, cells: Sequence[Cell], known: Mapping[str, Line], varied: Mapping[str, set[str]]
) -> list[Verdict]:
    meant = [cell for cell in cells if _is_meant(cell, target)]
    if target.along is None:
        verdicts = [_verdict(target, cell, known, varied) for cell in meant]
    else:
        series = _series(meant, target.along)
        verdicts = [verdict for one in series for verdict in _changes(target, target.along, one, known, varied)]
    return verdicts or [Verdict(target, "", "", None, "the suite has no such cell at this scale")]


def _verdict(target: Target, cell: Cell, known: Mapping[str, Line], varied: Mapping[str, set[str]]) -> Verdict:
    label = short_label(cell, varied)
    try:
        own = _measured(target, known.get(cell.id))
        if target.over is None:
            return Verdict(target, label, cell.name, own, _origin(target, known[cell.id], known))
        other = [line for line in known.values() if line["group_id"] == cell.group_id and line["name"] == target.over]
        try:
            unit = _measured(target, other[0] if other else None)
        except Unmeasured as why:
            raise Unmeasured(f"{target.over}: {why}") from why
    except Unmeasured as why:
        return Verdict(target, label, cell.name, None, str(why))
    return Verdict(target, label, f"{cell.name} over {target.over}", own / unit)


def _changes(
    target: Target, axis: str, cells: Sequence[Cell], known: Mapping[str, Line], varied: Mapping[str, set[str]]
) -> list[Verdict]:
    """From each of a series' cells to the next."""
    label = short_label(cells[0], varied, without=axis)
    if len(cells) == 1:
        return [Verdict(target, label, cells[0].name, None, f"there is only one value of {axis} at this scale")]
    return [_change(target, axis, pair, known, label) for pair in pairwise(cells)]


def _change(target: Target, axis: str, pair: tuple[Cell, Cell], known: Mapping[str, Line], label: str) -> Verdict:
    (x0, x1), lines = (axes(cell)[axis] for cell in pair), [known.get(cell.id) for cell in pair]
    name = f"{pair[0].name}, {axis} {x0:g} to {x1:g}"
    try:
        v0, v1 = (_measured(target, line) for line in lines)
    except Unmeasured as why:
        return Verdict(target, label, name, None, str(why))
    note = next(filter(None, (_origin(target, line, known) for line in lines if line)), "")
    grown = (v1 - v0) / (x1 - x0) if target.change == "per_unit" else math.log(v1 / v0) / math.log(x1 / x0)
    return Verdict(target, label, name, grown, note)


def _measured(target: Target, line: Line | None) -> float:
    """The target's number in a line of the summary. Raises Unmeasured."""
    if line is None:
        raise Unmeasured("it has no row yet")
    if line["status"] != Status.OK:
        raise Unmeasured(f"{line['status']}: {line['reason']}" if line["reason"] else str(line["status"]))
    if line["forward_disagrees"]:
        raise Unmeasured("its forward solution disagrees with the reference")
    value = line.get(target.measure)
    if value is None:
        raise Unmeasured(line["reason"] or f"{target.measure} was not measured")
    return value


def _origin(target: Target, line: Line, known: Mapping[str, Line]) -> str:
    """Where a number comes from, if not from a measurement of the cell itself."""
    of_memory = target.measure in ("memory_over_floor", "peak_tensor_bytes", "peak_states")
    if of_memory and line["peak_tensor_source"] == "fit":
        return "peak fitted to fewer steps"
    floor = {"group_id": line["group_id"], "name": f"{FLOOR} {line['gradient']}", "comparable": True}
    measured = any(all(other[key] == value for key, value in floor.items()) for other in known.values())
    return "" if measured or not target.measure.endswith("over_floor") else "over an estimate of the floor"


def _is_meant(cell: Cell, target: Target) -> bool:
    own = axes(cell)
    return all(axis in own and own[axis] in wanted for axis, wanted in target.cells.items())


def _series(cells: Sequence[Cell], axis: str) -> list[list[Cell]]:
    """The cells that differ in this axis alone, together and in its order; those without it are left out."""
    found: dict[object, list[Cell]] = {}
    for cell in cells:
        own = axes(cell)
        if own.pop(axis, None) is not None:
            found.setdefault(tuple(sorted(own.items())), []).append(cell)
    return [sorted(series, key=lambda cell: axes(cell)[axis]) for series in found.values()]


# Labels: a group's own is long, and most of its sizes are the same in all of a problem's cells.


def _varied_sizes(cells: Sequence[Cell]) -> dict[str, set[str]]:
    values: dict[str, dict[str, set[object]]] = {}
    for cell in cells:
        for name, value in cell.sizes:
            values.setdefault(cell.problem, {}).setdefault(name, set()).add(value)
    return {problem: {name for name, found in sizes.items() if len(found) > 1} for problem, sizes in values.items()}


def short_label(cell: Cell, varied: Mapping[str, set[str]], without: str = "") -> str:
    """The group's label with only those sizes that tell the problem's cells apart, and not the axis `without`."""
    told = varied.get(cell.problem, set()) - {without}
    label = replace(cell, sizes=tuple(size for size in cell.sizes if size[0] in told)).group_label.replace("()", "")
    return label.replace(f" {cell.steps} steps", "") if without == "steps" else label


# In words.


def headline(judgement: Judgement) -> str:
    """The target, and how far it was reached."""
    target, met = judgement.target, judgement.count(Outcome.MET)
    worst = "" if judgement.worst is None else f"worst {judgement.worst:.3g}, "
    sentence = f"{target.point}. {target.name}: at most {target.at_most:g}"
    return f"{sentence}; {worst}met in {met} of {len(judgement.verdicts)}"


def shortfalls(judgement: Judgement) -> list[str]:
    """A line for every cell that misses, and one for every reason of those that were not measured."""
    missed = [v for v in judgement.verdicts if v.outcome is Outcome.NOT_MET]
    open_ = [v for v in judgement.verdicts if v.outcome is Outcome.NOT_MEASURED]
    reasons = dict.fromkeys(verdict.note for verdict in open_)
    return [f"{v.measured:.3g}: {v.group}: {v.cell}{f' ({v.note})' if v.note else ''}" for v in missed] + [
        f"not measured ({sum(v.note == reason for v in open_)}): {reason}" for reason in reasons
    ]
