"""Criteria evaluated on the rows of a suite: the value at each place, or why there is none.

A cell without a row, a failed cell and a missing number leave a criterion "not measured", never "met".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from symplectic_bench.analysis.cell_lines import STAGES, CellLines
from symplectic_bench.analysis.paired import Ratio
from symplectic_bench.analysis.power_law import FEWEST, fit
from symplectic_bench.analysis.rounds import time_ratio
from symplectic_bench.analysis.summary import FLOOR, PAIRED, Line
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.criteria import Criterion
from symplectic_bench.spec.expansion import axes
from symplectic_bench.spec.status import Status


class CriterionOutcome(StrEnum):
    """Whether a criterion is met, at one place or at all of them."""

    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Evaluation:
    """A criterion at one place: a cell, two cells that are compared, or a series of cells.

    group and name describe the place. value is in the unit of the measure, or a ratio, a change or an exponent; note
    says why there is no value, or where it comes from. cells are those behind the value, axis is the axis in which they
    differ, and half_width is half the confidence interval of a fitted exponent. ratio is the value with its limits, if
    it is a ratio of times measured in the same rounds.
    """

    criterion: Criterion
    group: str
    name: str
    value: float | None = None
    note: str = ""
    cells: tuple[Cell, ...] = ()
    axis: str = ""
    half_width: float | None = None
    ratio: Ratio | None = None

    @property
    def outcome(self) -> CriterionOutcome:
        if self.value is None:
            return CriterionOutcome.NOT_MEASURED
        met = self.criterion.is_met_by(self.value, self.axis)
        return CriterionOutcome.MET if met else CriterionOutcome.NOT_MET


@dataclass(frozen=True)
class CriterionResult:
    """A criterion with its evaluation at every place it selects."""

    criterion: Criterion
    evaluations: tuple[Evaluation, ...]

    @property
    def outcome(self) -> CriterionOutcome:
        """Not met if any place misses the limit; met only if every place was measured and meets it."""
        found = {evaluation.outcome for evaluation in self.evaluations}
        order = (CriterionOutcome.NOT_MET, CriterionOutcome.NOT_MEASURED, CriterionOutcome.MET)
        return next(outcome for outcome in order if outcome in found)

    def having(self, outcome: CriterionOutcome) -> list[Evaluation]:
        """Return the evaluations with that outcome."""
        return [evaluation for evaluation in self.evaluations if evaluation.outcome is outcome]

    @property
    def values(self) -> list[float]:
        return [evaluation.value for evaluation in self.evaluations if evaluation.value is not None]

    @property
    def worst(self) -> float | None:
        """The largest value, or the smallest if the limit is `at_least`."""
        return (max if self.criterion.at_least is None else min)(self.values, default=None)


class NotMeasured(ValueError):
    """A value is missing; the message says why."""


def evaluate(criteria: Sequence[Criterion], cells: Sequence[Cell], lines: Sequence[Line]) -> list[CriterionResult]:
    """Return the result of every criterion on the cells that it selects. lines are those of a summary."""
    known = CellLines(cells, lines)
    return [CriterionResult(criterion, tuple(_evaluations(criterion, known))) for criterion in criteria]


def _evaluations(criterion: Criterion, known: CellLines) -> list[Evaluation]:
    cells = [cell for cell in known.cells if _selects(criterion, cell)]
    if criterion.powers is not None:
        return [found for axis in criterion.powers for found in _exponents(criterion, axis, cells, known)]
    if criterion.along is not None:
        every = _series(cells, criterion.along, known)
        found = [change for series in every for change in _changes(criterion, criterion.along, series, known)]
    elif criterion.over is not None:
        found = [_ratio(criterion, criterion.over, cell, known) for cell in cells]
    else:
        found = [_evaluated(_place(criterion, [cell], known), known, lambda y: (y[0], None)) for cell in cells]
    return found or [Evaluation(criterion, "", "", note="the suite has no such cell at this scale")]


def _selects(criterion: Criterion, cell: Cell) -> bool:
    own = axes(cell)
    return all(axis in own and own[axis] in wanted for axis, wanted in criterion.cells.items())


def _place(criterion: Criterion, cells: Sequence[Cell], known: CellLines, axis: str = "") -> Evaluation:
    """Return a place that has no value yet. axis is that of the series, if the cells form one."""
    label = known.short_label(cells[0], without=axis)
    return Evaluation(criterion, label, cells[0].name, cells=tuple(cells), axis=axis)


def _ratio(criterion: Criterion, over: str, cell: Cell, known: CellLines) -> Evaluation:
    """Return the cell's measure as a multiple of that of `over`, a contender and gradient in the same group."""
    place, line, other = _place(criterion, [cell], known), known.line(cell), known.named(over, cell.group_id)
    try:
        value, unit = _measured(criterion, line), _measured(criterion, other, f"{over}: ")
        _require_one_machine([line, other])
    except NotMeasured as why:
        return replace(place, note=str(why))
    contender, gradient = over.split(" ", 1)
    cells = (cell, replace(cell, contender=contender, gradient=gradient))
    ratio = time_ratio(line, other) if criterion.measure == "total_s" and line and other else None
    value = ratio.median if ratio else value / unit if unit else math.inf if value else 1.0
    return replace(place, name=f"{cell.name} over {over}", value=value, cells=cells, ratio=ratio)


def _changes(criterion: Criterion, axis: str, series: Sequence[Cell], known: CellLines) -> list[Evaluation]:
    """Return the change from each cell of a series to the next."""
    if len(series) == 1:
        why = f"there is only one value of {axis} at this scale"
        return [replace(_place(criterion, series, known, axis), note=why)]
    return [_along(criterion, axis, pair, known, _change) for pair in pairwise(series)]


def _exponents(criterion: Criterion, axis: str, cells: Sequence[Cell], known: CellLines) -> list[Evaluation]:
    """Return one exponent for each series that is long enough to fit one."""
    every = _series(cells, axis, known)
    long = [series for series in every if len({_position(cell, axis, known) for cell in series}) >= FEWEST]
    if not long:
        why = f"an exponent needs {FEWEST} values of {axis}, and there are fewer at this scale"
        return [Evaluation(criterion, "", "", note=why, axis=axis)]
    return [_along(criterion, axis, series, known, _fit) for series in long]


def _series(cells: Sequence[Cell], axis: str, known: CellLines) -> list[list[Cell]]:
    """Group the cells that differ only in this axis, each group in its order. Leave out cells without the axis."""
    found: dict[object, list[Cell]] = {}
    for cell in cells:
        own = known.axes(cell)
        if own.pop(axis, None) is None:
            continue
        own.pop("method" if axis == STAGES else STAGES, None)
        found.setdefault(tuple(sorted(own.items())), []).append(cell)
    return [sorted(series, key=lambda cell: _position(cell, axis, known)) for series in found.values()]


def _position(cell: Cell, axis: str, known: CellLines) -> float:
    value = known.axes(cell).get(axis)
    if not isinstance(value, int | float):
        raise NotMeasured(f"{axis} is {value!r} here, and cells can be compared only along a number")
    return value


Points = Sequence[tuple[float, float]]
Formula = Callable[[Criterion, Points], tuple[float, float | None]]


def _along(criterion: Criterion, axis: str, cells: Sequence[Cell], known: CellLines, formula: Formula) -> Evaluation:
    x = [_position(cell, axis, known) for cell in cells]
    place = _place(criterion, cells, known, axis)
    place = replace(place, name=f"{place.name}, {axis} {x[0]:g} to {x[-1]:g}")
    return _evaluated(place, known, lambda y: formula(criterion, list(zip(x, y, strict=True))))


def _evaluated(
    place: Evaluation, known: CellLines, formula: Callable[[list[float]], tuple[float, float | None]]
) -> Evaluation:
    """Return the place with the value and half width that the formula gives for the measure of its cells."""
    criterion, lines = place.criterion, [known.line(cell) for cell in place.cells]
    try:
        measured = [_measured(criterion, line) for line in lines]
        _require_one_machine(lines)
        value, half_width = formula(measured)
    except NotMeasured as why:
        return replace(place, note=str(why))
    note = next(filter(None, (_origin(criterion, line, known) for line in lines)), "")
    ratio = _own_ratio(criterion, lines[0]) if len(lines) == 1 else None
    return replace(place, value=value, note=note, half_width=half_width, ratio=ratio)


def _own_ratio(criterion: Criterion, line: Line | None) -> Ratio | None:
    """Return the cell's ratio of times with its limits, or None if the measure is none or has no rounds."""
    if line is None or criterion.measure not in PAIRED:
        return None
    low, high, rounds = (line[f"{criterion.measure}_{key}"] for key in ("low", "high", "rounds"))
    return None if rounds is None else Ratio(line[criterion.measure], low, high, int(rounds))


def _change(criterion: Criterion, points: Points) -> tuple[float, None]:
    (x0, y0), (x1, y1) = points
    if criterion.change == "per_unit":
        return (y1 - y0) / (x1 - x0), None
    _require_positive(criterion, points)
    return math.log(y1 / y0) / math.log(x1 / x0), None


def _fit(criterion: Criterion, points: Points) -> tuple[float, float]:
    _require_positive(criterion, points)
    found = fit(points)
    return found.power, found.half_width


def _require_positive(criterion: Criterion, points: Points) -> None:
    least = min(y for _, y in points)
    if least <= 0:
        raise NotMeasured(f"{criterion.measure} is {least:g} here, and an exponent needs positive values")


def _require_one_machine(lines: Sequence[Line | None]) -> None:
    if len({line["environment"] for line in lines if line is not None}) > 1:
        raise NotMeasured("its cells were measured on different machines: only --mix-machines compares them")


def _measured(criterion: Criterion, line: Line | None, whose: str = "") -> float:
    """Return the criterion's measure from a line of the summary. Raise NotMeasured if it is missing or unusable."""
    if line is None:
        raise NotMeasured(f"{whose}it has no row yet")
    if line["status"] != Status.OK and (criterion.measure != "gave_up" or line["gave_up"] is None):
        reason = f": {line['reason']}" if line["reason"] else ""
        raise NotMeasured(f"{whose}{line['status']}{reason}")
    if line["forward_disagrees"] and criterion.measure not in ("forward_error", "gave_up"):
        raise NotMeasured(f"{whose}its forward solution disagrees with the reference")
    value = line.get(criterion.measure)
    if value is None:
        raise NotMeasured(whose + (line["reason"] or f"{criterion.measure} was not measured"))
    return value


def _origin(criterion: Criterion, line: Line | None, known: CellLines) -> str:
    """Return where a value comes from if it is not wholly measured, else an empty string."""
    if line is None:
        return ""
    of_memory = criterion.measure in ("memory_over_floor", "peak_tensor_bytes", "peak_states")
    if of_memory and line["peak_tensor_source"] == "fit":
        return "peak fitted to fewer steps"
    if not criterion.measure.endswith("over_floor"):
        return ""
    floor = known.named(f"{FLOOR} {line['gradient']}", line["group_id"])
    return "" if floor is not None and floor["comparable"] else "over an estimate of the floor"
