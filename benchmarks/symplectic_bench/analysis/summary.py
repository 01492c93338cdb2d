"""Rows to a frame with what is derived from them: ratios, means, the order of memory, Pareto fronts."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.cell import FIRST_ITERATIONS, setting
from symplectic_bench.spec.status import Status

_GRADIENTS = (
    "symplectic", "aca", "baseline", "stages", "backprop", "continuous", "revolve", "graphs", "disk",
    "auto", "reversible", "mali",
)  # fmt: skip

DISPLAY_ORDER = (
    *(f"ours {gradient}" for gradient in _GRADIENTS),
    *(f"ours-{variant} {gradient}" for variant in ("compiled", "float64", "compensated") for gradient in _GRADIENTS),
    "torchdiffeq backprop",
    "torchdiffeq continuous",
    "torchdiffeq continuous-seminorm",
    "torchdiffeqpack aca",
    "torchdiffeqpack mali",
    *(f"paper {gradient}" for gradient in _GRADIENTS),
    "torchode backprop",
    "diffrax backprop",
    *(f"floor {gradient}" for gradient in _GRADIENTS if gradient != "continuous"),
)

PEER = "torchdiffeq backprop"
"""What ratios compare with: what a user has before changing anything."""

LEADER = "ours symplectic"
"""Whose losses the others' are compared with in training."""

FLOOR = "floor"
"""The contender that makes the bare calls."""

ORDERED = ("symplectic", "aca", "baseline")

OF_THE_STEPS = ("symplectic", "stages", "aca", "baseline", "revolve", "backprop", "disk")
"""Ours that are exact for the method's own steps."""

LAST_PLACE = {"float32": 2.0**-23, "float64": 2.0**-52}

CHEAP_GRAPH = 4
"""From a graph of this many states on, symplectic < aca < baseline is the claim; below, states decide."""

RATIOS = ("time_over_floor", "memory_over_floor", "time_over_peer", "memory_over_peer")

Line = dict[str, Any]


def summarize(rows: Sequence[Measurement]) -> pd.DataFrame:
    """One line a cell, groups as they come and DISPLAY_ORDER within. The row's fields, with these added:

    group, name: labels for people;
    comparable: the cell succeeded and its forward solution agrees with the reference;
    f_calls, vjps: forward and backward together; calls: both together; calls_per_stage: for each stage of each step;
    backward_tensor_bytes: what the backward pass has live above what the forward pass kept for it;
    time_over_floor, memory_over_floor: multiples of the floor contender's own for the same gradient in the same group,
    and where it was not measured of what this gradient's own calls and formula need;
    time_over_peer, memory_over_peer: multiples of torchdiffeq's backprop in the same group;
    error_discrete_ulp: in units of the last place of 1, in the cell's dtype;
    f_calls_over_formula: f calls as a multiple of formula_f_calls;
    forward_per_call_s: the forward pass's time for each f call; peak_states: the peak of tensors in states;
    steps_back_over_forth: N' / N, the steps of a second solve over those of the first;
    losses_off: of a network that was trained, by how much its losses differ from those with LEADER in the same group,
    relative, the largest of the first iterations that both have.
    Of trained networks total_s, f_calls and steps_accepted are medians over the first iterations that the whole group
    has, total_s without those that a process began with.
    setting_id: shared by cells that differ only in contender, gradient, seed or how long they train.
    A ratio is NaN where one of its two cells is not comparable, or was measured on another machine.
    """
    labels = group_labels(rows)
    peers = {run_of(row): row for row in rows if row.cell.name == PEER and comparable(row)}
    floors = {(run_of(row), row.gradient): row for row in rows if row.contender == FLOOR and comparable(row)}
    groups = {group: place for place, group in enumerate(dict.fromkeys(row.group_id for row in rows))}
    ordered = sorted(rows, key=lambda row: (groups[row.group_id], *display_place(row.cell.name)))
    trained: dict[RunKey, list[Measurement]] = {run_of(row): [] for row in rows}
    for row in rows:
        if row.losses:
            trained[run_of(row)].append(row)
    columns: dict[str, list[Any]] = {}
    for row in ordered:  # column by column: a line a cell would take several times the memory
        line = {name: getattr(row, name) for name in _FIELDS}
        line |= _derived(row, labels, peers.get(run_of(row)), floors.get((run_of(row), row.gradient)))
        line |= _trained(row, trained[run_of(row)])
        for name, value in line.items():
            columns.setdefault(name, []).append(value)
    return pd.DataFrame(columns, columns=None if columns else list(_FIELDS))


_FIELDS = tuple(f.name for f in fields(Measurement))


RunKey = tuple[str, str | None]


def run_of(row: Measurement) -> RunKey:
    """Group and machine: only what shares both is set against each other."""
    return row.group_id, row.environment


def lines_of(frame: pd.DataFrame) -> list[Line]:
    """The frame's lines as plain dictionaries, what is missing being None."""
    return [{str(k): None if _missing(v) else v for k, v in line.items()} for line in frame.to_dict("records")]


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def display_place(name: str) -> tuple[int, int, str]:
    """A key to sort by: a dial's settings by their number, names that DISPLAY_ORDER does not have last, by alphabet."""
    contender, _, gradient = name.partition(" ")
    dial, number = setting(gradient)
    kind = f"{contender} {dial}"
    return (DISPLAY_ORDER.index(kind) if kind in DISPLAY_ORDER else len(DISPLAY_ORDER), number, name)


def comparable(row: Measurement) -> bool:
    return row.status is Status.OK and not row.forward_disagrees


def group_labels(rows: Sequence[Measurement]) -> dict[str, str]:
    """group_id -> its label, with threads and seed where these differ among the rows."""
    varied = [axis for axis in ("threads", "seed") if len({getattr(row, axis) for row in rows}) > 1]
    return {
        row.group_id: ", ".join([row.cell.group_label, *(f"{axis} {getattr(row, axis)}" for axis in varied)])
        for row in rows
    }


def _derived(row: Measurement, labels: dict[str, str], peer: Measurement | None, floor: Measurement | None) -> Line:
    derived: Line = dict.fromkeys(RATIOS)
    if comparable(row) and row.graph_bytes != 0:  # a field that costs nothing is no yardstick
        time, memory = _floor(row, floor)
        derived["time_over_floor"] = ratio(row.total_s, time)
        derived["memory_over_floor"] = ratio(row.peak_tensor_bytes, memory)
    if comparable(row) and peer is not None:
        derived["time_over_peer"] = ratio(row.total_s, peer.total_s)
        if row.peak_tensor_source == peer.peak_tensor_source:  # a fitted peak is not set against an exact one
            derived["memory_over_peer"] = ratio(row.peak_tensor_bytes, peer.peak_tensor_bytes)
    f_calls = _sum(row.f_calls_forward, row.f_calls_backward)
    vjps = _sum(row.vjps_forward, row.vjps_backward)
    calls, kept = _sum(f_calls, vjps), row.kept_tensor_bytes
    return derived | {
        "group": labels[row.group_id],
        "name": row.cell.name,
        "setting_id": row.cell.setting_id,
        "comparable": comparable(row),
        "f_calls": f_calls,
        "vjps": vjps,
        "calls": calls,
        "error_discrete_ulp": ratio(row.error_discrete, LAST_PLACE[row.dtype]),
        "calls_per_stage": ratio(ratio(calls, row.steps_accepted), row.stages),
        "backward_tensor_bytes": _sum(row.peak_tensor_bytes, None if kept is None else -kept),
        "f_calls_over_formula": ratio(f_calls, formula_f_calls(row)),
        "forward_per_call_s": ratio(row.forward_s, row.f_calls_forward),
        "peak_states": ratio(row.peak_tensor_bytes, row.state_bytes),
        "steps_back_over_forth": ratio(row.steps_backward, row.steps_accepted),
    }


def _trained(row: Measurement, group: Sequence[Measurement]) -> Line:
    """What a trained network's row shows beside the others of its group."""
    if not row.losses:
        return {"losses_off": None}
    shown: Line = dict.fromkeys(("losses_off", *OF_ONE_SOLVE))
    leader = next((other for other in group if other.cell.name == LEADER), None)
    if leader is not None:
        shown["losses_off"] = max(losses_off(row.losses, leader.losses or []), default=None)
    common = range(min(FIRST_ITERATIONS, *(len(other.losses or []) for other in group)))
    warm = [i for i in common if i not in (row.cold_iterations or [])] or list(common)
    if row.total_samples_s:
        shown["total_s"] = statistics.median(row.total_samples_s[i] for i in warm)
    for name, samples in (("f_calls", row.f_calls_samples), ("steps_accepted", row.steps_samples)):
        if samples:
            shown[name] = statistics.median_low(samples[i] for i in common)
    return shown


OF_ONE_SOLVE = ("time_over_peer", "memory_over_peer", "vjps", "calls", "calls_per_stage", "f_calls_over_formula")
"""What means nothing where an iteration solves several fields, or is not of the iterations that all have."""


def losses_off(losses: Sequence[float], others: Sequence[float]) -> list[float]:
    """The relative difference of each of the FIRST_ITERATIONS' losses from the other's."""
    pairs = zip(losses[:FIRST_ITERATIONS], others[:FIRST_ITERATIONS], strict=False)
    return [abs(one - other) / abs(other) if other else abs(one) for one, other in pairs]


def _floor(row: Measurement, floor: Measurement | None) -> tuple[float | None, int | None]:
    """Seconds and bytes: what was measured before what was estimated, and a fit not before what is exact."""
    time, memory = row.floor_s, row.floor_tensor_bytes
    if floor is not None:
        time = floor.total_s or time
        if floor.peak_tensor_source == row.peak_tensor_source:
            memory = floor.peak_tensor_bytes or memory
    return time, memory


def ratio(value: float | None, unit: float | None) -> float | None:
    return None if value is None or not unit else value / unit


def _sum(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def overview(frame: pd.DataFrame) -> list[Line]:
    """One line a contender and gradient: cells, how many succeeded, worst discrete errors, mean ratios.

    Means are geometric, over the comparable cells that have the ratio; `compared` counts those with a peer.
    """
    shown = ["name", "status", "dtype", "comparable", "error_discrete", *RATIOS]
    cells = lines_of(pd.DataFrame(frame[shown])) if len(frame) else []
    overview = []
    for name in sorted({line["name"] for line in cells}, key=display_place):
        own = [line for line in cells if line["name"] == name]
        good = [line for line in own if line["comparable"]]
        line: Line = {"name": name, "cells": len(own), "ok": Counter(c["status"] for c in own)[Status.OK]}
        for dtype in ("float64", "float32"):
            errors = [c["error_discrete"] for c in good if c["dtype"] == dtype and c["error_discrete"] is not None]
            line[f"worst_error_discrete_{dtype}"] = max(errors, default=None)
        line |= {f"mean_{name}": geometric_mean(c[name] for c in good) for name in RATIOS}
        overview.append(line | {"compared": sum(c["time_over_peer"] is not None for c in good)})
    return overview


def geometric_mean(values: Iterable[float | None]) -> float | None:
    known = [math.log(value) for value in values if value]
    return math.exp(sum(known) / len(known)) if known else None


def ordering(frame: pd.DataFrame) -> list[Line]:
    """One line a group: the peaks that formulas predict for symplectic, aca and baseline, and those measured.

    With D bytes of a state, A of the graph of one f, N steps and s stages: symplectic (N + s) D + A,
    aca N D + s A, baseline D + N s A (Matsubara et al. 2021, Table 1, in bytes). `held` says whether the two
    come in the same order, and is None where one of the three was not measured.
    """
    cells = [line for line in lines_of(frame) if line["contender"] == "ours" and line["gradient"] in ORDERED]
    groups = dict.fromkeys(line["group_id"] for line in cells)
    return [_ordering({c["gradient"]: c for c in cells if c["group_id"] == group}) for group in groups]


_OF_FORMULAS = ("state_bytes", "graph_bytes", "steps_accepted", "stages")


def _ordering(cells: dict[str, Line]) -> Line:
    group = next(iter(cells.values()))["group"]
    statuses = {name: str(cells[name]["status"]) if name in cells else "not measured" for name in ORDERED}
    failed = ", ".join(f"{name} {status}" for name, status in statuses.items() if status != Status.OK)
    if failed:
        return {"group": group, "held": None, "reason": failed}
    measured: Line = {name: cells[name]["peak_tensor_bytes"] for name in ORDERED}
    numbers = [cells["symplectic"][key] for key in _OF_FORMULAS]
    if None in (*numbers, *measured.values()):
        return {"group": group, "held": None, "reason": "a number that the formulas need was not measured"}
    D, A, N, s = (int(number) for number in numbers)
    predicted: Line = {"symplectic": (N + s) * D + A, "aca": N * D + s * A, "baseline": D + N * s * A}
    orders = [" < ".join(sorted(ORDERED, key=lambda name: peaks[name])) for peaks in (predicted, measured)]
    line = {"group": group, "state_bytes": D, "graph_bytes": A, "steps_accepted": N, "stages": s}
    line |= {"graph_of_4_states": A >= CHEAP_GRAPH * D}
    line |= {f"predicted_{name}_bytes": predicted[name] for name in ORDERED}
    line |= {f"measured_{name}_bytes": measured[name] for name in ORDERED}
    line |= {"predicted_order": orders[0], "measured_order": orders[1]}
    return line | {"held": orders[0] == orders[1], "reason": None}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats in both coordinates (less is better): their places, from left to right.

    Of equal points the first counts. A point with a NaN is on no front.
    """
    front: list[int] = []
    best = math.inf
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    for i in sorted(known, key=lambda i: (*points[i], i)):
        if points[i][1] < best:
            best = points[i][1]
            front.append(i)
    return front


FSAL = ("bosh3", "dopri5", "tsit5")
"""Methods whose last stage is the next step's first: k_1 costs nothing after a step, and everything after none."""


def formula_f_calls(row: Measurement) -> int | None:
    """The f calls, forward and backward together, that the row's gradient cannot do without; None where not known.

    N accepted and R rejected steps of s stages: forward N s, and s for a rejected step (one less where k_1 is still at
    hand); with tolerances one for the initial step size, and one for an FSAL method's first k_1. Backward, symplectic
    computes a step's stages anew and then each once more on the graph, the last one only there, and the last step's
    are still at hand; aca, stages and baseline make each call once more. M components have each their own start and
    last step. Known for one output at the end.
    """
    N, R, s = row.steps_accepted, row.steps_rejected, row.stages
    if N is None or R is None or s is None or row.sizes.get("outputs", 1) != 1:
        return None
    M = int(row.sizes.get("components", 1))
    again = {"backprop": 0, "baseline": N * s, "aca": N * s, "stages": N * s}
    again["symplectic"] = N * (2 * s - 1) - M * (s - 1)
    if row.gradient not in again:
        return None
    fsal = row.method in FSAL
    start = 0 if row.rtol is None else M * (1 + fsal)
    return N * s + R * (s if fsal else s - 1) + start + again[row.gradient]
