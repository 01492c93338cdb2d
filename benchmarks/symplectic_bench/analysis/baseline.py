"""Baselines: the accepted measurements of each suite in a small file, with a tolerance for each metric.

The file has one JSON object per line: first the tolerances, which may be edited and are kept when the baseline is
rewritten, then the cells.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.summary import PEER, comparable, machine_group, ratio
from symplectic_bench.files.atomic import replace_text
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
"""The metrics that decide a check."""

TIME = "time_over_reference"
"""total_s as a multiple of the reference contender's in the same group, whose runs alternate with the cell's. Advisory,
except in a check with --time."""


CellValues = Mapping[str, Any]
"""The values of one cell by name, as stored in a baseline or compared with it."""


class BaselineMissing(RuntimeError):
    """There is no baseline to compare with."""


class UnfitForBaseline(RuntimeError):
    """Rows that must not become a baseline, or a file that is not a baseline."""


@dataclass(frozen=True)
class Tolerance:
    """How far a metric may be from the baseline.

    Either it is `within` a relative distance, up or down, or it is at most `factor` times the baseline. With `factor`,
    a value below the `floor` of the dtype is always allowed.
    """

    within: float | None = None
    factor: float | None = None
    floor: Mapping[str, float] = field(default_factory=dict)

    def allows(self, before: float, now: float, dtype: str, slack: float = 0.0) -> bool:
        """Return whether the value `now` is allowed. slack is the uncertainty of the value itself."""
        if self.within is not None:
            return abs(now - before) <= self.within * abs(before)
        return now <= max(self.floor.get(dtype, 0.0), self.limit(before) + slack)

    def limit(self, before: float) -> float:
        """Return the largest value that `factor` allows."""
        return (self.factor or 1.0) * before

    def wording(self, before: float, dtype: str) -> str:
        """Return the allowed values in words."""
        if self.within is not None:
            return f"within {self.within:.0%}" if self.within else "no change"
        return f"at most {max(self.floor.get(dtype, 0.0), self.limit(before)):.3g}"


@dataclass(frozen=True)
class TimeTolerance:
    """A time is too long if it exceeds the baseline's both by the fraction `relative` and by `absolute_s` seconds."""

    relative: float = 0.5
    absolute_s: float = 0.01


TOLERANCES: dict[str, Tolerance] = {
    # Equal, unless the change is intended and recorded.
    **{name: Tolerance(within=0.0) for name in COUNTERS},
    # The allocator rounds sizes up. A gain counts too: if it is not recorded, it can be lost again unnoticed.
    "peak_tensor_bytes": Tolerance(within=0.01),
    # Rounding differs between machines; a gradient that is no longer exact is off by far more.
    "error_discrete": Tolerance(factor=10, floor={"float64": 1e-12, "float32": 1e-4}),
    "error_true": Tolerance(factor=1.5),
}


@dataclass(frozen=True)
class Baseline:
    """The cells of a suite with their accepted values. The value `cell` is a readable name."""

    cells: Sequence[CellValues]
    tolerances: Mapping[str, Tolerance] = field(default_factory=lambda: TOLERANCES)
    time: TimeTolerance = field(default_factory=TimeTolerance)

    @property
    def digest(self) -> str:
        """8 hex digits that change with the values and the tolerances."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:8]

    def text(self) -> str:
        """Return the content of the file."""
        tolerances = {name: _given(tolerance) for name, tolerance in self.tolerances.items()}
        lines = [{"tolerances": tolerances, "time": asdict(self.time)}, *map(dict, self.cells)]
        return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _given(tolerance: Tolerance) -> dict[str, Any]:
    return {name: value for name, value in asdict(tolerance).items() if value not in (None, {})}


KEPT = ("cell_id", "cell", "dtype", "status", *METRICS, TIME)
"""The values of a cell that a baseline keeps."""


def lines_of_rows(rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return for each row the values that a baseline keeps, and those needed for a comparison with one."""
    references = {machine_group(row): row for row in rows if row.cell.name == PEER and comparable(row)}
    lines = []
    for row in rows:
        reference = references.get(machine_group(row))
        over = None if reference is None or not comparable(row) else ratio(row.total_s, reference.total_s)
        line = {"cell": f"{row.cell.group_label}: {row.cell.name}", TIME: over}
        shown = ("cell_id", "dtype", "status", *METRICS, "reason", "error_true_bar", "total_s")
        lines.append(line | {name: getattr(row, name) for name in shown})
    return lines


def cells_of(lines: Sequence[CellValues]) -> list[dict[str, Any]]:
    """Return the part of the lines that a baseline keeps."""
    cells = [{name: to_json_value(line[name]) for name in KEPT} for line in lines]
    return [cell | {TIME: None if cell[TIME] is None else float(f"{cell[TIME]:.3g}")} for cell in cells]


def require_all_measured(rows: Sequence[Measurement], total: int) -> None:
    """Raise UnfitForBaseline unless all `total` cells have a row and were measured or skipped.

    A cell that is missing from a baseline is never checked.
    """
    if len(rows) < total:
        raise UnfitForBaseline(f"{len(rows)} of the suite's {total} cells have rows: run all of it first")
    unmeasured = [row for row in rows if row.status not in (Status.OK, Status.SKIPPED)]
    if unmeasured:
        lines = [f"{row.cell.group_label}: {row.cell.name}: {row.status}: {row.reason}" for row in unmeasured]
        raise UnfitForBaseline("cells that were not measured cannot be a baseline:\n" + "\n".join(lines))


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file, replacing an earlier one atomically."""
    replace_text(path, baseline.text())


def read_baseline(path: Path) -> Baseline:
    """Read a baseline. Raise BaselineMissing if there is no file, UnfitForBaseline if it is not a valid one."""
    if not path.is_file():
        raise BaselineMissing(f"no baseline {path.as_posix()}: record one with check --update")
    try:
        head, *cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        tolerances = {name: Tolerance(**given) for name, given in head["tolerances"].items()}
        baseline = Baseline(cells, TOLERANCES | tolerances, TimeTolerance(**head["time"]))
        _check(baseline)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as why:
        raise UnfitForBaseline(f"{path.as_posix()} is not a baseline ({why}): record one with check --update") from why
    return baseline


def _check(baseline: Baseline) -> None:
    """Raise ValueError or KeyError for a value with which a comparison would not mean what the file says."""
    if not baseline.cells:
        raise ValueError("it has no cells")
    for name, tolerance in baseline.tolerances.items():
        numbers = (tolerance.within, tolerance.factor, *tolerance.floor.values())
        if name not in METRICS or not all(number is None or is_size(number) for number in numbers):
            raise ValueError(f"the tolerance of {name} is {tolerance}")
    if not (is_size(baseline.time.relative) and is_size(baseline.time.absolute_s)):
        raise ValueError(f"the tolerance of time is {baseline.time}")
    for cell in baseline.cells:
        Status(cell["status"])
        if not all(isinstance(cell[name], str) for name in ("cell_id", "cell", "dtype")):
            raise ValueError(f"a cell is {dict(cell)!r:.80}")
        for name in (*METRICS, TIME):
            value = cell[name]
            if not (value is None or is_size(value) or (name not in COUNTERS and value in NON_FINITE)):
                raise ValueError(f"{name} is {value!r:.80}")


def is_size(value: object) -> bool:
    """Return whether the value is a finite number that is not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**1000


def mentioned_in(changelog: Path, name: str, baseline: Baseline) -> bool:
    """Return whether a line of the changelog has the baseline's name and digest."""
    lines = changelog.read_text(encoding="utf-8", errors="replace").splitlines() if changelog.exists() else []
    return any(name in line and baseline.digest in line for line in lines)
