"""The comparison of a suite's rows with its baseline: what got worse, and what else changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from symplectic_bench.analysis.baseline import METRICS, TIME, Baseline, CellValues, TimeTolerance, lines_of_rows
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.status import Status

LEAST_REPORTED = 0.1
"""The least relative change of an error that is reported although allowed: machines differ in the last digits."""


class Kind(StrEnum):
    """How serious a finding is."""

    REGRESSION = "regression"
    MOVED = "moved"
    """A change within its tolerance."""
    SLOWER = "slower"
    """A time beyond its limits, which fails a check only with --time."""


@dataclass(frozen=True)
class Finding:
    """One metric of one cell that differs from the baseline."""

    kind: Kind
    cell: str
    metric: str
    baseline: Any
    measured: Any
    allowed: str

    @property
    def values(self) -> tuple[str, str]:
        """The baseline's and the measured value, with three digits, or as many as tell them apart."""
        return told_apart(self.baseline, self.measured)

    @property
    def change(self) -> str:
        """What changed, without the cell."""
        before, now = self.values
        return f"{self.metric} was {before}, is {now} (allowed: {self.allowed})"

    def __str__(self) -> str:
        return f"{self.cell}: {self.change}"


def told_apart(first: Any, second: Any) -> tuple[str, str]:
    """Return two values as text; floats with three digits, or with as many as make them differ."""
    texts = [str(first), str(second)]
    for digits in range(3, 18):
        texts = [f"{x:.{digits}g}" if isinstance(x, float) else str(x) for x in (first, second)]
        if texts[0] != texts[1] or first == second:
            break
    return texts[0], texts[1]


def compare(rows: Sequence[Measurement], baseline: Baseline) -> list[Finding]:
    """Return everything that differs from the baseline. A cell of the baseline without a row is a regression."""
    return compare_lines(lines_of_rows(rows), baseline)


def compare_lines(lines: Sequence[CellValues], baseline: Baseline) -> list[Finding]:
    """Return everything in the lines of lines_of_rows, or of read_micro, that differs from the baseline."""
    measured = {line["cell_id"]: line for line in lines}
    return [x for was in baseline.cells for x in _compare_cell(was, measured.get(was["cell_id"]), baseline)]


def count_new_cells(lines: Sequence[CellValues], baseline: Baseline) -> int:
    """Return the number of cells that the baseline does not have."""
    return len({line["cell_id"] for line in lines} - {was["cell_id"] for was in baseline.cells})


def _compare_cell(was: CellValues, now: CellValues | None, baseline: Baseline) -> list[Finding]:
    def status(found: str, allowed: str) -> list[Finding]:
        return [Finding(Kind.REGRESSION, was["cell"], "status", was["status"], found, allowed)]

    if now is None:
        return status("no row", "a row for every cell of the baseline")
    if was["status"] != Status.OK:
        return []  # it can only have improved
    if now["status"] != Status.OK:
        return status(f"{now['status']} ({now['reason']})" if now.get("reason") else now["status"], "ok")
    findings = [_compare_metric(metric, was, now, baseline) for metric in METRICS]
    findings.append(_compare_time(was, now, baseline.time))
    return [finding for finding in findings if finding is not None]


def _compare_metric(metric: str, was: CellValues, now: CellValues, baseline: Baseline) -> Finding | None:
    before, found = was.get(metric), now.get(metric)
    if not isinstance(before, int | float):
        return None  # not measured, or NaN or infinite
    tolerance = baseline.tolerances[metric]
    slack = (now.get("error_true_bar") or 0.0) if metric == "error_true" else 0.0
    allowed = tolerance.wording(before, was["dtype"])
    if not isinstance(found, int | float) or not tolerance.allows(before, found, was["dtype"], slack):
        return Finding(Kind.REGRESSION, was["cell"], metric, before, found, allowed)
    rounding = baseline.tolerances["error_discrete"].floor.get(was["dtype"], 0.0)
    if tolerance.within is None and (
        max(before, found) <= rounding or abs(found - before) < LEAST_REPORTED * abs(before)
    ):
        return None  # an error that differs between machines, or that is rounding
    if found == before:
        return None
    return Finding(Kind.MOVED, was["cell"], metric, before, found, allowed)


def _compare_time(was: CellValues, now: CellValues, tolerance: TimeTolerance) -> Finding | None:
    before, ratio, total_s = was.get(TIME), now.get(TIME), now.get("total_s")
    if not before:
        return None
    if not ratio or total_s is None:
        return Finding(Kind.SLOWER, was["cell"], TIME, before, None, "a time, and one for the reference contender")
    if ratio <= (1 + tolerance.relative) * before:
        return None
    longer_s = total_s * (1 - before / ratio)
    if longer_s <= tolerance.absolute_s:
        return None
    allowed = f"{tolerance.relative:.0%} or {tolerance.absolute_s:g} s more"
    return Finding(Kind.SLOWER, was["cell"], TIME, before, ratio, allowed)


def of_kind(findings: Sequence[Finding], *kinds: Kind) -> list[Finding]:
    """Return the findings of these kinds."""
    return [finding for finding in findings if finding.kind in kinds]
