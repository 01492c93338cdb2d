"""Cells as plain data for the script: what is known of each, and the ratios of every two of a group."""

from collections.abc import Sequence
from typing import Any

from symplectic_bench.analysis.cell_ratios import Pair, pairs
from symplectic_bench.analysis.rounds import round_times
from symplectic_bench.analysis.summary import PAIRED, Line
from symplectic_bench.report.columns import Column, measured_columns, shown_status, texts
from symplectic_bench.report.comparisons import WRITTEN, with_written_ratios
from symplectic_bench.report.numerals import (
    count,
    mebibytes,
    milliseconds,
    ratio_with_limits,
    scientific,
    text,
    three_digits,
)

FACTS: tuple[Column, ...] = (
    ("status", "shown_status", text),
    ("time, ms", "total_s", milliseconds),
    ("rounds, least to most, ms", "rounds_range", text),
    ("time x floor", f"{WRITTEN}time_over_floor", text),
    ("time x peer", f"{WRITTEN}time_over_peer", text),
    ("tensors, MiB", "peak_tensor_bytes", mebibytes),
    ("memory x floor", "memory_over_floor", three_digits),
    ("memory x peer", "memory_over_peer", three_digits),
    ("RSS, MiB", "peak_rss_bytes", mebibytes),
    ("error, discrete", "error_discrete", scientific),
    ("error, true", "error_true", scientific),
    ("reference's error", "error_true_bar", scientific),
    ("steps", "steps_accepted", count),
    ("f calls", "f_calls", count),
    ("VJPs", "vjps", count),
)


def cells_data(lines: Sequence[Line]) -> dict[str, Any]:
    """Return the cells in the order of the lines, the headings of their facts, and the ratios of their pairs."""
    known = [with_written_ratios(line, PAIRED) for line in lines]
    known = [line | {"shown_status": shown_status(line), "rounds_range": _rounds_range(line)} for line in known]
    columns = measured_columns(FACTS, known)
    places = {line["cell_id"]: place for place, line in enumerate(lines)}
    ratios: dict[int, dict[int, list[str]]] = {}
    for pair in pairs(lines):
        first, second = places[pair.first["cell_id"]], places[pair.second["cell_id"]]
        ratios.setdefault(first, {})[second] = _ratio_texts(pair)
    return {
        "facts": [heading for heading, _, _ in columns],
        "cells": [_cell(line, columns) for line in known],
        "ratios": ratios,
    }


def _cell(line: Line, columns: Sequence[Column]) -> dict[str, Any]:
    shown = {key: line[key] for key in ("name", "group", "problem", "method", "dtype", "device")}
    return {"id": line["cell_id"], **shown, "comparable": line["comparable"], "facts": texts(line, columns)}


def _rounds_range(line: Line) -> str | None:
    """Return the times of the quickest and the slowest round, None for a cell timed once and for a training."""
    times = [] if line["losses"] else round_times(line)
    return f"{milliseconds(min(times))} to {milliseconds(max(times))}" if len(times) > 1 else None


def _ratio_texts(pair: Pair) -> list[str]:
    """Return the ratios of the second cell's time and memory to the first's."""
    memory = three_digits(pair.memory)
    if pair.time is None or pair.in_rounds is None:
        return [three_digits(pair.time), memory]
    found = pair.in_rounds
    return [ratio_with_limits(found.median, found.low, found.high, found.has_interval), memory]
