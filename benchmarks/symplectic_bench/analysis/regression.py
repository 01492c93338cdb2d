"""What a suite measured held against its baseline: what must not get worse unnoticed, and what has moved at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from symplectic_bench.analysis.baseline import METRICS, TIME, Baseline, TimeTolerance, lines_of_rows
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.status import Status

SEEN = 0.1
"""An error that has moved within its tolerance is told from this share on: the last digits are another machine's."""


class Kind(StrEnum):
    REGRESSION = "regression"
    MOVED = "moved"
    """Within its tolerance."""
    SLOWER = "slower"
    """A time beyond its limits, which fails a check only where that was asked for."""


@dataclass(frozen=True)
class Finding:
    """One metric of one cell that is not as it was."""

    kind: Kind
    cell: str
    metric: str
    baseline: Any
    measured: Any
    allowed: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.metric} was {self.baseline}, is {self.measured} (allowed: {self.allowed})"


Line = Mapping[str, Any]


def compare(rows: Sequence[Measurement], baseline: Baseline) -> list[Finding]:
    """Everything that is not as in the baseline. A cell of the baseline without a row is a regression."""
    return compare_lines(lines_of_rows(rows), baseline)


def compare_lines(lines: Sequence[Line], baseline: Baseline) -> list[Finding]:
    measured = {line["cell_id"]: line for line in lines}
    return [x for was in baseline.cells for x in _compare_cell(was, measured.get(was["cell_id"]), baseline)]


def unrecorded(lines: Sequence[Line], baseline: Baseline) -> int:
    """How many of the cells the baseline does not know."""
    return len({line["cell_id"] for line in lines} - {was["cell_id"] for was in baseline.cells})


def _compare_cell(was: Line, now: Line | None, baseline: Baseline) -> list[Finding]:
    def status(found: str, allowed: str) -> list[Finding]:
        return [Finding(Kind.REGRESSION, was["cell"], "status", was["status"], found, allowed)]

    if now is None:
        return status("no row", "a row for every cell of the baseline")
    if was["status"] != Status.OK:
        return []  # it only can have become better
    if now["status"] != Status.OK:
        return status(f"{now['status']} ({now['reason']})" if now.get("reason") else now["status"], "ok")
    findings = [_compare_metric(metric, was, now, baseline) for metric in METRICS]
    findings.append(_compare_time(was, now, baseline.time))
    return [finding for finding in findings if finding is not None]


def _compare_metric(metric: str, was: Line, now: Line, baseline: Baseline) -> Finding | None:
    before, found = was.get(metric), now.get(metric)
    if not isinstance(before, int | float):
        return None  # it was not measured, or not a number
    tolerance = baseline.tolerances[metric]
    slack = (now.get("error_true_bar") or 0.0) if metric == "error_true" else 0.0
    allowed = tolerance.wording(before, was["dtype"])
    if not isinstance(found, int | float) or not tolerance.allows(before, found, was["dtype"], slack):
        return Finding(Kind.REGRESSION, was["cell"], metric, before, found, allowed)
    if found == before or (tolerance.within is None and abs(found - before) < SEEN * abs(before)):
        return None
    return Finding(Kind.MOVED, was["cell"], metric, before, found, allowed)


def _compare_time(was: Line, now: Line, tolerance: TimeTolerance) -> Finding | None:
    before, ratio, total_s = was.get(TIME), now.get(TIME), now.get("total_s")
    if not before:
        return None
    if not ratio or total_s is None:
        return Finding(Kind.SLOWER, was["cell"], TIME, before, None, "a time beside the reference contender's")
    if ratio <= (1 + tolerance.relative) * before:
        return None
    longer_s = total_s * (1 - before / ratio)
    if longer_s <= tolerance.absolute_s:
        return None
    allowed = f"{tolerance.relative:.0%} or {tolerance.absolute_s:g} s more"
    return Finding(Kind.SLOWER, was["cell"], TIME, before, ratio, allowed)


def of_kind(findings: Sequence[Finding], *kinds: Kind) -> list[Finding]:
    return [finding for finding in findings if finding.kind in kinds]
