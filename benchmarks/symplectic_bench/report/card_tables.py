"""The tables of gpu-report: what every entrant takes, beside the peers, and the targets."""

from collections.abc import Mapping, Sequence
from typing import Any

from symplectic_bench.analysis.card_targets import CardVerdict, Row
from symplectic_bench.analysis.paired import FEWEST_ROUNDS, paired_ratio
from symplectic_bench.report.numerals import MISSING
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.run.card_rounds import Result
from symplectic_bench.run.card_rows import DIFFRAX, TORCHDIFFEQ

YARDSTICKS = {"torchdiffeq": TORCHDIFFEQ, "diffrax": DIFFRAX, "captured bare calls": "captured bare calls"}
"""The entrants of which times are shown as multiples, by the headings of their columns."""

HEADINGS = ("gradient", "ms", *(f"over {name}" for name in YARDSTICKS))
COUNTS = {"waits": "waits", "launches": "launches", "graphs": "graph_launches"}
BYTES = {"MiB": "peak_tensor_bytes", "reserved MiB": "peak_reserved_bytes"}


def measurements_table(rows: Mapping[str, Row], where: str) -> Table:
    """Return the table of all entrants, one section a row."""
    return Table(
        name="gpu-report",
        title="One gradient on a card",
        caption=(
            "Medians of one forward and backward pass. over ...: the median of the ratios within a round, with (its"
            f" 95 % bootstrap interval) from {FEWEST_ROUNDS} rounds on, else [the smallest, the largest]. MiB: peak of"
            " live tensors, with what a captured gradient keeps for the next one;"
            " reserved: what the allocator takes for it. waits: how often the host waits for the card."
        ),
        where=where,
        headings=(*HEADINGS, *BYTES, *COUNTS),
        sections=tuple(Section(name, *_lines_and_notes(row)) for name, row in rows.items()),
        data=(),
    )


def targets_table(found: Sequence[CardVerdict], where: str) -> Table:
    """Return the table of targets."""
    lines = tuple(
        (one.target.row, one.target.name, one.written, f"{one.target.at_most:g}", VERDICTS[one.met]) for one in found
    )
    return Table(
        name="gpu-targets",
        title="Targets of a captured solve",
        caption="Each with what was measured.",
        where=where,
        headings=("row", "target", "measured", "at most", ""),
        sections=(Section("", lines),),
        data=(),
    )


VERDICTS = {True: "met", False: "missed", None: "not measured"}


def _lines_and_notes(row: Row) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    lines = tuple(_line(one, row) for one in row.values() if one.samples_s)
    notes = tuple(f"{one.name}: {one.status}: {one.reason}" for one in row.values() if one.reason and not one.ok)
    return lines, notes


def _line(one: Result, row: Row) -> tuple[str, ...]:
    multiples = [_over(one, row.get(other)) for other in YARDSTICKS.values()]
    method = one.entrant.cell.method
    name = one.name if method == next(iter(row.values())).entrant.cell.method else f"{one.name} ({method})"
    sizes = [_written(one.measured.get(field), 2**20) for field in BYTES.values()]
    counts = [_written(one.measured.get(field)) for field in COUNTS.values()]
    return (name, f"{1e3 * one.median_s:.3g}", *multiples, *sizes, *counts)


def _over(one: Result, other: Result | None) -> str:
    if other is None or one is other:
        return MISSING
    found = paired_ratio(one.samples_s, other.samples_s)
    return MISSING if found is None else str(found)


def _written(value: Any, unit: int = 1) -> str:
    return MISSING if value is None else f"{value / unit:.3g}" if unit > 1 else str(value)


def as_json(rows: Mapping[str, Row], found: Sequence[CardVerdict]) -> dict[str, Any]:
    """Return everything measured as plain values: all samples, and the verdicts."""
    entrants = [
        {
            "row": one.row,
            "name": one.name,
            "cell": one.entrant.cell.group_label,
            "status": one.status,
            "reason": one.reason,
            "samples_s": one.samples_s,
            **one.measured,
        }
        for row in rows.values()
        for one in row.values()
    ]
    targets = [
        {"row": v.target.row, "name": v.target.name, "at_most": v.target.at_most, "value": v.value, "met": v.met}
        for v in found
    ]
    return {"rows": entrants, "targets": targets}
