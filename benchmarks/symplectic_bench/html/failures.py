"""The table of cells without a measurement that counts, with the reason of each."""

from collections import Counter
from collections.abc import Sequence

from symplectic_bench.analysis.summary import Line
from symplectic_bench.report.columns import shown_status
from symplectic_bench.report.numerals import MISSING, three_digits
from symplectic_bench.report.suite_report import SuiteReport
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.status import Status

UNMEASURED = "not measured"
NO_ROW = "no run has reached it yet"

KEYS = ("status", "name", "group", "reason", "cell_id")


def failures_table(report: SuiteReport) -> Table:
    """Return a line for each cell that failed, was skipped, solved another problem, or has no row yet."""
    lines = [_failure(line) for line in report.lines if line["status"] != Status.OK or line["forward_disagrees"]]
    lines += _without_rows(report)
    shown = tuple(tuple(str(line[key]) for key in KEYS) for line in lines)
    caption = (
        "Every cell without a measurement that counts: its status, and the reason. A skipped cell is one that a"
        " contender cannot solve, or that this machine cannot measure."
    )
    headings = ("status", "gradient", "group", "reason", "cell")
    return Table(
        "failures", "Failed and skipped cells", caption, report.where, headings, (Section("", shown),), tuple(lines)
    )


def statuses(report: SuiteReport) -> Counter[str]:
    """Return how many cells ended in each way, most frequent first."""
    found = Counter(shown_status(line) for line in report.lines)
    found[UNMEASURED] += len(report.cells_without_rows)
    return Counter(dict(found.most_common()))


def _failure(line: Line) -> Line:
    reason = line["reason"]
    if line["status"] == Status.OK:
        error = three_digits(line["forward_error"])
        reason = f"the forward solution is {error} tolerances off the reference: excluded from ratios and fronts"
    return {key: line[key] for key in KEYS} | {"status": shown_status(line), "reason": reason or MISSING}


def _without_rows(report: SuiteReport) -> Sequence[Line]:
    known = {cell.id: cell for cell in report.known_cells}
    lines: list[Line] = []
    for id in sorted(report.cells_without_rows):
        cell = known.get(id)
        names = (MISSING, MISSING) if cell is None else (cell.name, cell.group_label)
        lines.append(dict(zip(KEYS, (UNMEASURED, *names, NO_ROW, id), strict=True)))
    return lines
