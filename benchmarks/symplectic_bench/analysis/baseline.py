"""Baselines: what a suite measured when it was good, one small file a suite, with how far each metric may be from it.

The file is JSON, a line each: first the tolerances, which may be edited and stay when the baseline is written again,
then the cells.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.summary import PEER, comparable, ratio, run_of
from symplectic_bench.data.atomic_files import replace_text
from symplectic_bench.rows.record import NON_FINITE, Measurement, to_json_value
from symplectic_bench.spec.status import Status

COUNTERS = (
    "f_calls_forward",
    "f_calls_backward",
    "vjps_forward",
    "vjps_backward",
    "steps_accepted",
    "steps_rejected",
)

METRICS = (*COUNTERS, "peak_tensor_bytes", "error_discrete", "error_true")
"""What decides."""

TIME = "time_over_reference"
"""total_s as a multiple of the reference contender's in the same group, whose runs took turns with the cell's: it only
advises."""


class BaselineMissing(RuntimeError):
    """There is nothing to compare with."""


class UnfitForBaseline(RuntimeError):
    """Rows that a baseline must not hold, or a file that is none."""


@dataclass(frozen=True)
class Tolerance:
    """How far a metric may be from the baseline: `within` a share of it, up or down; or at most `factor` times it,
    where what is below the dtype's `floor` is always allowed.
    """

    within: float | None = None
    factor: float | None = None
    floor: Mapping[str, float] = field(default_factory=dict)

    def allows(self, before: float, now: float, dtype: str, slack: float = 0.0) -> bool:
        """slack: by how much a number is not certain itself."""
        if self.within is not None:
            return abs(now - before) <= self.within * abs(before)
        return now <= max(self.floor.get(dtype, 0.0), self.limit(before) + slack)

    def limit(self, before: float) -> float:
        return (self.factor or 1.0) * before

    def wording(self, before: float, dtype: str) -> str:
        if self.within is not None:
            return f"within {self.within:.0%}" if self.within else f"{before:g}"
        return f"at most {max(self.floor.get(dtype, 0.0), self.limit(before)):.3g}"


@dataclass(frozen=True)
class TimeTolerance:
    """A time is worse where it is by `relative` and by `absolute_s` more than the baseline's ratio says."""

    relative: float = 0.5
    absolute_s: float = 0.01


TOLERANCES: dict[str, Tolerance] = {
    # Equal, or the change is wanted and recorded.
    **{name: Tolerance(within=0.0) for name in COUNTERS},
    # The allocator rounds sizes up; a gain that is not recorded can be lost.
    "peak_tensor_bytes": Tolerance(within=0.01),
    # Rounding differs between machines; a method that is not exact any more is off by far more.
    "error_discrete": Tolerance(factor=10, floor={"float64": 1e-12, "float32": 1e-4}),
    "error_true": Tolerance(factor=1.5),
}


@dataclass(frozen=True)
class Baseline:
    """cells are lines of values by name, with `cell` for people."""

    cells: Sequence[Mapping[str, Any]]
    tolerances: Mapping[str, Tolerance] = field(default_factory=lambda: TOLERANCES)
    time: TimeTolerance = field(default_factory=TimeTolerance)

    @property
    def digest(self) -> str:
        """Changes with the numbers and the tolerances."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:8]

    def text(self) -> str:
        tolerances = {name: _given(tolerance) for name, tolerance in self.tolerances.items()}
        lines = [{"tolerances": tolerances, "time": asdict(self.time)}, *map(dict, self.cells)]
        return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _given(tolerance: Tolerance) -> dict[str, Any]:
    return {name: value for name, value in asdict(tolerance).items() if value not in (None, {})}


KEPT = ("cell_id", "cell", "dtype", "status", *METRICS, TIME)
"""What a baseline keeps of a cell."""


def lines_of_rows(rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A line a cell: what a baseline keeps, and what is needed to hold it against one."""
    references = {run_of(row): row for row in rows if row.cell.name == PEER and comparable(row)}
    lines = []
    for row in rows:
        reference = references.get(run_of(row))
        over = None if reference is None or not comparable(row) else ratio(row.total_s, reference.total_s)
        line = {"cell": f"{row.cell.group_label}: {row.cell.name}", TIME: over}
        shown = ("cell_id", "dtype", "status", *METRICS, "reason", "error_true_bar", "total_s")
        lines.append(line | {name: getattr(row, name) for name in shown})
    return lines


def cells_of(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a baseline keeps of them."""
    cells = [{name: to_json_value(line[name]) for name in KEPT} for line in lines]
    return [cell | {TIME: None if cell[TIME] is None else float(f"{cell[TIME]:.3g}")} for cell in cells]


def require_whole(rows: Sequence[Measurement], whole: int) -> None:
    """Raises UnfitForBaseline where some of `whole` cells have no row or were not measured: what a baseline does not
    hold is never checked.
    """
    if len(rows) < whole:
        raise UnfitForBaseline(f"{len(rows)} of the suite's {whole} cells have rows: run all of it first")
    unmeasured = [row for row in rows if row.status not in (Status.OK, Status.SKIPPED)]
    if unmeasured:
        lines = [f"{row.cell.group_label}: {row.cell.name}: {row.status}: {row.reason}" for row in unmeasured]
        raise UnfitForBaseline("cells that were not measured cannot be a baseline:\n" + "\n".join(lines))


def write_baseline(path: Path, baseline: Baseline) -> None:
    replace_text(path, baseline.text())


def read_baseline(path: Path) -> Baseline:
    """Raises BaselineMissing, and UnfitForBaseline for a file that is no baseline."""
    if not path.is_file():
        raise BaselineMissing(f"no baseline {path.name} in {path.parent.name}/: record one with check --update")
    try:
        head, *cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        tolerances = {name: Tolerance(**given) for name, given in head["tolerances"].items()}
        baseline = Baseline(cells, TOLERANCES | tolerances, TimeTolerance(**head["time"]))
        _check(baseline)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as why:
        raise UnfitForBaseline(f"{path.name} is no baseline ({why}): record one with check --update") from why
    return baseline


def _check(baseline: Baseline) -> None:
    """Raises ValueError or KeyError for what would not be compared as it reads."""
    if not baseline.cells:
        raise ValueError("it has no cells")
    for name, tolerance in baseline.tolerances.items():
        numbers = (tolerance.within, tolerance.factor, *tolerance.floor.values())
        if name not in METRICS or not all(number is None or _is_size(number) for number in numbers):
            raise ValueError(f"the tolerance of {name} is {tolerance}")
    if not (_is_size(baseline.time.relative) and _is_size(baseline.time.absolute_s)):
        raise ValueError(f"the tolerance of time is {baseline.time}")
    for cell in baseline.cells:
        Status(cell["status"])
        if not all(isinstance(cell[name], str) for name in ("cell_id", "cell", "dtype")):
            raise ValueError(f"a cell is {dict(cell)!r:.80}")
        for name in (*METRICS, TIME):
            value = cell[name]
            if not (value is None or _is_size(value) or (name not in COUNTERS and value in NON_FINITE)):
                raise ValueError(f"{name} is {value!r:.80}")


def _is_size(value: object) -> bool:
    """A number that is not below zero, and no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**1000


def recorded(baseline: Baseline, name: str, changelog: Path) -> bool:
    """Whether the changelog has a line on this baseline: its name and its digest."""
    lines = changelog.read_text(encoding="utf-8").splitlines() if changelog.is_file() else []
    return any(name in line and baseline.digest in line for line in lines)
