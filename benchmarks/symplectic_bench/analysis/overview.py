"""A summary's cells aggregated over all groups."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.analysis.summary import PAIRED, PEER, RATIOS, Line, display_place, lines_of
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.spec.status import Status

DEFAULT = "ours symplectic"
"""The gradient that a call gets without naming one."""


def overview(frame: pd.DataFrame) -> list[Line]:
    """Return one line per contender and gradient: cells, successes, worst discrete errors, mean ratios.

    Means are geometric, over the comparable cells that have the ratio; `compared` counts those with a peer. Those of
    the ratios in PAIRED have limits, mean_<ratio>_low and mean_<ratio>_high, if all their cells have an interval.
    """
    limits = [f"{name}_{key}" for name in PAIRED for key in ("low", "high", "rounds")]
    shown = ["name", "status", "dtype", "comparable", "error_discrete", *RATIOS, *limits]
    overview = []
    for name in sorted(set(frame["name"]) if len(frame) else (), key=display_place):
        own = lines_of(pd.DataFrame(frame.loc[frame["name"] == name, shown]))  # of all, they would take much memory
        good = [line for line in own if line["comparable"]]
        line: Line = {"name": name, "cells": len(own), "ok": Counter(c["status"] for c in own)[Status.OK]}
        for dtype in ("float64", "float32"):
            errors = [c["error_discrete"] for c in good if c["dtype"] == dtype and c["error_discrete"] is not None]
            line[f"worst_error_discrete_{dtype}"] = max(errors, default=None)
        line |= {f"mean_{name}": geometric_mean(c[name] for c in good) for name in RATIOS}
        for name in PAIRED:
            low, high = _limits_of_mean([c for c in good if c[name]], name)
            line |= {f"mean_{name}_low": low, f"mean_{name}_high": high}
        overview.append(line | {"compared": sum(c["time_over_peer"] is not None for c in good)})
    return overview


def in_short(frame: pd.DataFrame) -> list[str]:
    """Return three rows as text: our fastest exact gradient, the one with the least memory, and the default.

    Each with its time and memory as multiples of PEER, over the same number of cells. Empty if no cell of ours was
    measured beside PEER.
    """
    ours = [line for line in overview(frame) if line["name"].startswith("ours") and _is_exact(line["name"])]
    complete = [x for x in ours if x["mean_time_over_peer"] and x["mean_memory_over_peer"]]
    most = max((line["compared"] for line in complete), default=0)
    complete = [line for line in complete if line["compared"] == most]
    if not complete:
        return []
    chosen = {
        "fastest": min(complete, key=lambda line: line["mean_time_over_peer"]),
        "least memory": min(complete, key=lambda line: line["mean_memory_over_peer"]),
        "the default": next((line for line in complete if line["name"] == DEFAULT), None),
    }
    shown = [(what, line) for what, line in chosen.items() if line is not None]
    width = max(len(line["name"]) for _, line in shown)
    return [
        f"as multiples of {PEER}, geometric means:",
        *(
            f"  {what:12}  {line['name']:{width}}  time {line['mean_time_over_peer']:.2f}"
            f"  memory {line['mean_memory_over_peer']:.2g}  ({line['compared']} cells)"
            for what, line in shown
        ),
    ]


def _is_exact(name: str) -> bool:
    return gradient_record(name.partition(" ")[2]).exact_for_method


def _limits_of_mean(cells: Sequence[Line], name: str) -> tuple[float | None, float | None]:
    """Return the interval of the geometric mean of a ratio, from those of the cells, whose errors are independent.

    Half widths of independent logarithms add up in quadrature, each side on its own.
    """
    if not cells or any((c[f"{name}_rounds"] or 0) < FEWEST_ROUNDS for c in cells):
        return None, None
    mean = geometric_mean(c[name] for c in cells)
    assert mean is not None, "every cell has the ratio"
    below, above = (
        math.hypot(*(math.log(c[f"{name}_{side}"] / c[name]) for c in cells)) / len(cells) for side in ("low", "high")
    )
    return mean * math.exp(-below), mean * math.exp(above)


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the known values, or None if there are none."""
    known = [math.log(value) for value in values if value]
    return math.exp(sum(known) / len(known)) if known else None
