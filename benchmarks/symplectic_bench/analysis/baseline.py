"""Baselines: the accepted measurements of each suite in a small file, with a tolerance for each metric.

The file has one JSON object per line: first the tolerances, which may be edited and are kept when the baseline is
rewritten, then the cells.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.backward_cost import backward_over_calls, backward_waits
from symplectic_bench.analysis.summary import PEER, comparable, machine_group, ratio
from symplectic_bench.contenders.gradient_records import gradient_record
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

BACKWARD = "backward_over_calls"
"""The backward pass's time of the processor as a multiple of its bare calls': [least, largest] over the rounds. It
decides a check, as WAITS does."""

WAITS = "backward_waits"
"""How often the backward pass gives up its core, in the best of the rounds."""

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


@dataclass(frozen=True)
class Elsewhere:
    """What is allowed to solves with adaptive steps on a kind of processor on which the baseline was not checked.

    There the last digits of an error estimate differ, and with them the number of steps: by `steps`, or by the fraction
    `within` if that is more. What grows with the steps may differ by the same fraction.
    """

    steps: int = 1
    within: float = 0.05

    def fraction(self, steps: int | None) -> float:
        """Return the fraction by which a solve of this many steps, and what grows with it, may differ."""
        return max(self.within, self.steps / max(1, steps or 0))


ADAPTIVE = ("", "forward", "both")
"""The solves of a cell that choose their steps by error estimates: none, the forward one, or a second, backward one."""

BACKWARD_FACTOR = 1.5
"""A backward pass is too slow if even its least BACKWARD exceeds the baseline's largest by this factor."""

FEW_WAITS = 5
"""The number of WAITS more than the baseline's that is too few to be one in each VJP."""


WIDEST = 2.0
"""An interval whose ends differ by a larger factor says that the machine was busy: it would let anything pass."""


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
    """The cells of a suite with their accepted values. The value `cell` is a readable name.

    kinds are the kinds of processor on which these counts were found; None in a file that does not say.
    """

    cells: Sequence[CellValues]
    tolerances: Mapping[str, Tolerance] = field(default_factory=lambda: TOLERANCES)
    time: TimeTolerance = field(default_factory=TimeTolerance)
    kinds: Sequence[str] | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    backward_factor: float = BACKWARD_FACTOR

    def knows(self, line: CellValues) -> bool:
        """Return whether the counts of a line of lines_of_rows must equal the baseline's even with adaptive steps."""
        return self.kinds is None or line.get("kind") is None or line["kind"] in self.kinds

    @property
    def digest(self) -> str:
        """8 hex digits that change with the values and the tolerances."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:8]

    def text(self) -> str:
        """Return the content of the file."""
        tolerances = {name: _given(tolerance) for name, tolerance in self.tolerances.items()}
        head: dict[str, Any] = {"tolerances": tolerances, "time": asdict(self.time)}
        if self.kinds is not None:
            head |= {"kinds": list(self.kinds), "elsewhere": asdict(self.elsewhere)}
        lines = [head | {"backward_factor": self.backward_factor}, *map(dict, self.cells)]
        return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _given(tolerance: Tolerance) -> dict[str, Any]:
    return {name: value for name, value in asdict(tolerance).items() if value not in (None, {})}


KEPT = ("cell_id", "cell", "dtype", "status", "adaptive", *METRICS, TIME, BACKWARD, WAITS)
"""The values of a cell that a baseline keeps."""


def lines_of_rows(rows: Sequence[Measurement], kinds: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return for each row the values that a baseline keeps, and those needed for a comparison with one.

    kinds: by environment id, the kind of processor on which a row was measured.
    """
    references = {machine_group(row): row for row in rows if row.cell.name == PEER and comparable(row)}
    lines = []
    for row in rows:
        reference = references.get(machine_group(row))
        over = None if reference is None or not comparable(row) else ratio(row.total_s, reference.total_s)
        line = {"cell": f"{row.cell.group_label}: {row.cell.name}", TIME: over, BACKWARD: backward_over_calls(row)}
        line[WAITS] = backward_waits(row)
        line |= {"adaptive": _adaptive(row), "kind": (kinds or {}).get(row.environment or "")}
        shown = ("cell_id", "dtype", "status", *METRICS, "reason", "error_true_bar", "total_s")
        lines.append(line | {name: getattr(row, name) for name in shown})
    return lines


def _adaptive(row: Measurement) -> str:
    if row.rtol is None:
        return ""
    return "both" if gradient_record(row.gradient).second_solve else "forward"


def cells_of(lines: Sequence[CellValues]) -> list[dict[str, Any]]:
    """Return the part of the lines that a baseline keeps."""
    cells = [{name: to_json_value(line.get(name)) for name in KEPT} for line in lines]
    for cell in cells:
        cell[TIME] = None if cell[TIME] is None else _rounded(cell[TIME])
        least, largest = cell[BACKWARD] or (1.0, math.inf)
        cell[BACKWARD] = [_rounded(least), _rounded(largest)] if largest <= WIDEST * least else None
    return cells


def with_earlier_times(cells: Sequence[CellValues], earlier: Baseline) -> list[CellValues]:
    """Return the cells, each with the interval of an earlier baseline where a busy machine gave it none."""
    known = {cell["cell_id"]: cell.get(BACKWARD) for cell in earlier.cells}
    return [{**cell, BACKWARD: cell[BACKWARD] or known.get(cell["cell_id"])} for cell in cells]


def _rounded(ratio: float) -> float:
    return float(f"{ratio:.3g}")


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
        baseline = Baseline(
            cells,
            TOLERANCES | tolerances,
            TimeTolerance(**head["time"]),
            head.get("kinds"),
            Elsewhere(**head.get("elsewhere", {})),
            head.get("backward_factor", BACKWARD_FACTOR),
        )
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
    if not all(map(is_size, (baseline.elsewhere.steps, baseline.elsewhere.within, baseline.backward_factor))):
        raise ValueError(
            f"the tolerances are {baseline.elsewhere} and backward_factor {baseline.backward_factor!r:.80}"
        )
    if baseline.kinds is not None and not (isinstance(baseline.kinds, list) and _are_texts(baseline.kinds)):
        raise ValueError(f"kinds is {baseline.kinds!r:.80}")
    for cell in baseline.cells:
        Status(cell["status"])
        if not _are_texts([cell[name] for name in ("cell_id", "cell", "dtype")]):
            raise ValueError(f"a cell is {dict(cell)!r:.80}")
        for name in (*METRICS, TIME, WAITS):
            value = cell.get(name) if name == WAITS else cell[name]
            if not (value is None or is_size(value) or (name not in COUNTERS and value in NON_FINITE)):
                raise ValueError(f"{name} is {value!r:.80}")
        if cell.get("adaptive") not in (None, *ADAPTIVE):
            raise ValueError(f"adaptive is {cell['adaptive']!r:.80}")
        interval = cell.get(BACKWARD)
        if interval is not None and not (
            isinstance(interval, list) and len(interval) == 2 and all(map(is_size, interval))
        ):
            raise ValueError(f"{BACKWARD} is {interval!r:.80}")


def _are_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def is_size(value: object) -> bool:
    """Return whether the value is a finite number that is not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**1000


def mentioned_in(changelog: Path, name: str, baseline: Baseline) -> bool:
    """Return whether a line of the changelog has the baseline's name and digest."""
    lines = changelog.read_text(encoding="utf-8", errors="replace").splitlines() if changelog.exists() else []
    return any(name in line and baseline.digest in line for line in lines)
