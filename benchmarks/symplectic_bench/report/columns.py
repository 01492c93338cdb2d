"""Columns of tables with one line per cell: which to show, what they say, and the notes below them."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from symplectic_bench.analysis.summary import Line
from symplectic_bench.report.comparisons import without_written
from symplectic_bench.report.numerals import three_digits
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.status import Status

Column = tuple[str, str, Callable[[Any], str]]  # heading, key in the line, format

SAMPLES = {field.name for field in fields(Measurement) if "list" in str(field.type)}
"""Fields that hold many values, which tables leave out."""

REASONS = ("reason", "error_discrete_reason", "error_true_reason", "floor_captured_reason")


def measured_columns(columns: Sequence[Column], lines: Sequence[Line]) -> Sequence[Column]:
    """Return the columns for which some line has a value: not every suite measures everything."""
    return [column for column in columns if not lines or any(line.get(column[1]) is not None for line in lines)]


def texts(line: Line, columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the line's formatted values, column by column."""
    return tuple(form(line.get(key)) for _, key, form in columns)


def numbers(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the lines for a CSV file: without formatted ratios and without samples."""
    return tuple({key: value for key, value in without_written(line).items() if key not in SAMPLES} for line in lines)


def shown_status(line: Line) -> str:
    """Return the cell's status, with a remark if its forward solution is wrong."""
    disagrees = line["status"] == Status.OK and line["forward_disagrees"]
    return "ok, forward disagrees" if disagrees else str(line["status"])


def notes(cells: Sequence[Line]) -> tuple[str, ...]:
    """Say why cells failed or numbers are missing: each reason once, with all the cells that it applies to."""
    holders: dict[str, list[str]] = {}
    for line in cells:
        reasons = [line[name] for name in REASONS]
        if line["forward_disagrees"]:
            error = three_digits(line["forward_error"])
            reasons.append(
                f"the forward solution is {error} tolerances off the reference: excluded from ratios and fronts"
            )
        if line["peak_tensor_source"] == "fit":
            reasons.append("the peak tensor memory is fitted to runs with fewer steps")
        for reason in filter(None, reasons):
            holders.setdefault(reason, []).append(line["name"])
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in holders.items())
