"""Deterministic counters of a run against a committed baseline: what must not get worse unnoticed."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import Measurement, Status

COUNTERS = (
    "f_calls_forward",
    "f_calls_backward",
    "vjps_forward",
    "vjps_backward",
    "steps_accepted",
    "steps_rejected",
)
"""Equal to the baseline, or the change is wanted and recorded."""

BYTES_TOLERANCE = 0.01
"""Of peak_tensor_bytes, either way: the allocator rounds sizes up, and a gain that is not recorded can be lost."""

ROUNDING = {"float64": 1e-12, "float32": 1e-4}
DISCRETE_FACTOR, TRUE_FACTOR = 10, 1.5
"""error_discrete may grow to the rounding level or tenfold; error_true by half, and by the reference's own error."""

METRICS = (*COUNTERS, "peak_tensor_bytes", "error_discrete", "error_true")


class BaselineMissing(RuntimeError):
    """There is nothing to compare with."""


class UnfitForBaseline(RuntimeError):
    """Rows that a baseline must not hold."""


@dataclass(frozen=True)
class Finding:
    """One metric of one cell that is not as it was."""

    cell: str
    metric: str
    baseline: Any
    measured: Any
    allowed: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.metric} was {self.baseline}, is {self.measured} (allowed: {self.allowed})"


def baseline_line(row: Measurement) -> dict[str, Any]:
    """What a baseline keeps of a row."""
    kept = {"cell_id": row.cell_id, "cell": f"{row.cell.group_label}: {row.cell.name}", "dtype": row.dtype}
    values = row.to_json()
    return kept | {key: values[key] for key in ("status", *METRICS)}


def write_baseline(path: Path, rows: Sequence[Measurement], whole: int) -> None:
    """Replaces the baseline by the rows of a suite of `whole` cells.

    Raises UnfitForBaseline where some are missing or were not measured: what a baseline does not hold is never checked.
    """
    if len(rows) < whole:
        raise UnfitForBaseline(f"{len(rows)} of the suite's {whole} cells have rows: run all of it first")
    unmeasured = [row for row in rows if row.status not in (Status.OK, Status.SKIPPED)]
    if unmeasured:
        lines = [f"{row.cell.group_label}: {row.cell.name}: {row.status}: {row.reason}" for row in unmeasured]
        raise UnfitForBaseline("cells that were not measured cannot be a baseline:\n" + "\n".join(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    lines = [json.dumps(baseline_line(row), allow_nan=False) for row in rows]
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(temporary, path)


def read_baseline(path: Path) -> list[dict[str, Any]]:
    """The baseline's lines. Raises BaselineMissing."""
    if not path.is_file():
        raise BaselineMissing(f"no baseline {path.name} in {path.parent.name}/: record one with check --update")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compare(rows: Sequence[Measurement], baseline: Sequence[dict[str, Any]]) -> list[Finding]:
    """Every metric of the baseline's cells that a row does not meet. A cell of the baseline without a row is one."""
    measured = {row.cell_id: row for row in rows}
    return [finding for was in baseline for finding in _compare_cell(was, measured.get(was["cell_id"]))]


def unrecorded(rows: Sequence[Measurement], baseline: Sequence[dict[str, Any]]) -> int:
    """How many rows the baseline does not know."""
    return len({row.cell_id for row in rows} - {was["cell_id"] for was in baseline})


def _compare_cell(was: dict[str, Any], row: Measurement | None) -> list[Finding]:
    if row is None:
        return [Finding(was["cell"], "status", was["status"], "no row", "a row for every cell of the baseline")]
    if was["status"] != Status.OK:
        return []  # it only can have become better
    if row.status is not Status.OK:
        return [Finding(was["cell"], "status", was["status"], f"{row.status} ({row.reason})", "ok")]
    findings = [_compare_metric(metric, was, row) for metric in METRICS]
    return [finding for finding in findings if finding is not None]


def _compare_metric(metric: str, was: dict[str, Any], row: Measurement) -> Finding | None:
    before, now = was[metric], getattr(row, metric)
    if not isinstance(before, int | float):
        return None  # it was not measured, or not a number
    allowed = f"{before}"
    if now is None:
        good = False
    elif metric in COUNTERS:
        good = now == before
    elif metric == "peak_tensor_bytes":
        good, allowed = abs(now - before) <= BYTES_TOLERANCE * before, f"within {BYTES_TOLERANCE:.0%}"
    else:
        limit = _error_limit(metric, before, row)
        good, allowed = now <= limit, f"at most {limit:.3g}"
    return None if good else Finding(was["cell"], metric, before, now, allowed)


def _error_limit(metric: str, before: float, row: Measurement) -> float:
    if metric == "error_discrete":
        return max(ROUNDING[row.dtype], DISCRETE_FACTOR * before)
    return TRUE_FACTOR * before + (row.error_true_bar or 0.0)
