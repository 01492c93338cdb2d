"""The comparison of a suite's rows with its baseline: what got worse, and what else changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from symplectic_bench.analysis.baseline import (
    BACKWARD,
    COUNTERS,
    FEW_WAITS,
    METRICS,
    TIME,
    WAITS,
    Baseline,
    CellValues,
    TimeTolerance,
    lines_of_rows,
)
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
    ELSEWHERE = "elsewhere"
    """A count that another kind of processor may have changed, within what is allowed there."""


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


def counts_are_equal(lines: Sequence[CellValues], baseline: Baseline) -> bool:
    """Return whether the lines are those of the baseline's cells, with its counts and peaks: on this kind too."""
    counted = ("status", *COUNTERS, "peak_tensor_bytes")
    findings = compare_lines(lines, replace(baseline, kinds=None))
    return count_new_cells(lines, baseline) == 0 and not any(
        finding.kind is Kind.REGRESSION and finding.metric in counted for finding in findings
    )


def remark_on_kinds(lines: Sequence[CellValues], baseline: Baseline) -> str:
    """Say what is not compared in full, since the baseline was not checked on this kind of processor; "" if all is."""
    was = {cell["cell_id"]: cell for cell in baseline.cells}
    varying = [x for x in lines if x["cell_id"] in was and varies_elsewhere(was[x["cell_id"]], x, baseline)]
    if not varying:
        return ""
    here, known = (", ".join(sorted(kinds)) for kinds in ({x["kind"] for x in varying}, baseline.kinds or ()))
    steps, within = baseline.elsewhere.steps, baseline.elsewhere.within
    return (
        f"the baseline was checked on {known}, not on {here}: the steps of {len(varying)} adaptive cells may differ by "
        f"{steps} or by {within:.0%}, and calls and bytes of those that differ, or have a second solve, as much; all "
        "else is compared in full. If the counts are right, check --update records this kind"
    )


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
    findings += [_compare_time(was, now, baseline.time), _compare_backward(was, now, baseline.backward_factor)]
    findings.append(_compare_waits(was, now))
    return [finding for finding in findings if finding is not None]


STEPS = ("steps_accepted", "steps_rejected")


def varies_elsewhere(was: CellValues, now: CellValues, baseline: Baseline) -> bool:
    """Return whether the cell's steps depend on the kind of processor, and the baseline was not checked on this one."""
    return bool(was.get("adaptive")) and not baseline.knows(now)


def _compare_metric(metric: str, was: CellValues, now: CellValues, baseline: Baseline) -> Finding | None:
    if metric in (*COUNTERS, "peak_tensor_bytes") and varies_elsewhere(was, now, baseline):
        same_steps = all(was.get(name) == now.get(name) for name in STEPS)
        if not same_steps or (was["adaptive"] == "both" and metric not in STEPS):
            return _compare_elsewhere(metric, was, now, baseline)
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


def _compare_elsewhere(metric: str, was: CellValues, now: CellValues, baseline: Baseline) -> Finding | None:
    """Compare a count or a peak that grows with the steps, whose number another kind of processor changed."""
    before, found = was.get(metric), now.get(metric)
    if not isinstance(before, int | float) or found == before:
        return None
    fraction = baseline.elsewhere.fraction(was.get("steps_accepted"))
    unit = (was.get("steps_accepted") or 1) if metric == "steps_rejected" else before
    limit = fraction * unit * (1 + 1e-12) + (baseline.tolerances[metric].within or 0.0) * before
    allowed = f"within {limit / before:.0%} on another kind of processor" if before else f"at most {limit:g}"
    near = isinstance(found, int | float) and abs(found - before) <= limit
    return Finding(Kind.ELSEWHERE if near else Kind.REGRESSION, was["cell"], metric, before, found, allowed)


def _compare_waits(was: CellValues, now: CellValues) -> Finding | None:
    before, found = was.get(WAITS), now.get(WAITS)
    if before is None or found is None or found <= before + FEW_WAITS:
        return None
    return Finding(Kind.REGRESSION, was["cell"], WAITS, before, found, f"at most {before + FEW_WAITS}")


def _compare_backward(was: CellValues, now: CellValues, factor: float) -> Finding | None:
    """Compare the least ratio of this run's rounds with the largest of the baseline's: noise raises few of them all."""
    before, found = was.get(BACKWARD), now.get(BACKWARD)
    if not before or not found or found[0] <= factor * before[1]:
        return None
    allowed = f"at most {factor * before[1]:.3g} in some round"
    return Finding(Kind.REGRESSION, was["cell"], BACKWARD, before[1], found[0], allowed)


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
