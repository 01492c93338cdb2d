"""Micro-benchmarks read from a pytest-benchmark file, to be compared with a baseline like a suite's cells."""

import json
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.baseline import METRICS, TIME, TimeTolerance, UnfitForBaseline, is_size

REFERENCE = "test_reference"
"""The benchmark whose time is the unit of the others."""

TIME_TOLERANCE = TimeTolerance(relative=1.0, absolute_s=2e-5)


def read_micro(path: Path) -> list[dict[str, Any]]:
    """Return the counters (extra_info) and the median time of each benchmark. Raise UnfitForBaseline for a bad file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        medians_s = {one["name"]: _size(one["stats"]["median"]) for one in found}
        reference_s = medians_s[REFERENCE]
        return [
            {name: None if (value := one["extra_info"].get(name)) is None else _size(value) for name in METRICS}
            | {"cell_id": one["name"], "cell": one["name"], "dtype": "float64", "status": "ok"}
            | {TIME: medians_s[one["name"]] / reference_s, "total_s": medians_s[one["name"]]}
            for one in found
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError) as why:
        raise UnfitForBaseline(
            f"{path.name} is not a pytest-benchmark file with the benchmark {REFERENCE} ({type(why).__name__}: {why})"
        ) from why


def _size(value: Any) -> Any:
    """Return the value. Raise ValueError if it is not a finite number that is not negative."""
    if not is_size(value):
        raise ValueError(f"{value!r:.80} is not a time or a count")
    return value
