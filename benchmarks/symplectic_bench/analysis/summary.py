"""The summary of a suite's rows: a frame with one line per cell, with the ratios and other derived numbers."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from symplectic_bench.analysis.f_call_formula import formula_f_calls
from symplectic_bench.analysis.rounds import ITERATIONS, TIMING, iteration_ratios, time_statistics
from symplectic_bench.contenders.contender_records import contender_place
from symplectic_bench.contenders.gradient_records import gradient_place
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.cell import FIRST_ITERATIONS
from symplectic_bench.spec.status import Status

PEER = "torchdiffeq backprop"
"""The contender and gradient that a user starts from, the denominator of ratios."""

LEADER = "ours symplectic"
"""The contender and gradient with whose losses the others are compared in training."""

FLOOR = "floor"
"""The contender that makes only the bare calls."""

LAST_PLACE = {"float32": 2.0**-23, "float64": 2.0**-52}
"""One unit in the last place of 1."""

RATIOS = ("time_over_floor", "time_over_captured_floor", "memory_over_floor", "time_over_peer", "memory_over_peer")

PAIRED = ("time_over_floor", "time_over_peer")
"""The ratios of times that are measured in the same rounds, so that each round gives one."""

STATISTICS = ("low", "high", "rounds", "mean", "log_spread", "p_value")
"""What the rounds say of a ratio, in columns of these endings."""

Line = dict[str, Any]


def summarize(rows: Sequence[Measurement]) -> pd.DataFrame:
    """Return one line per cell, groups in the order of the rows, and in display order within a group.

    The columns are the row's fields and these:
    group, name: labels for people;
    setting_id: shared by cells that differ only in contender, gradient, seed or training length;
    comparable: the cell succeeded and its forward solution agrees with the reference;
    f_calls, vjps: forward and backward together; calls: their sum; calls_per_stage: calls per stage of each step;
    f_calls_over_formula: f calls as a multiple of formula_f_calls;
    forward_per_call_s: the forward pass's time per f call; peak_states: the peak tensor memory in states;
    backward_tensor_bytes: the peak tensor memory above the tensors kept from the forward pass;
    time_over_floor, memory_over_floor: multiples of the floor measured for the same gradient in the same group or, if
    that was not measured, of its estimate from the gradient's own calls and formula;
    time_over_captured_floor: a multiple of the gradient's own bare calls replayed from a CUDA graph;
    time_over_peer, memory_over_peer: multiples of PEER in the same group;
    a time over a floor or a peer that took turns with the cell is the median of the rounds' ratios, else the ratio of
    the medians; <ratio>_low, _high and _rounds are those of paired.Ratio, _mean is the geometric mean of the rounds'
    ratios, _log_spread the standard deviation of their logarithms, and _p_value that of the sign-flip test, of
    paired.FEWEST_ROUNDS rounds or more;
    gave_up: 1 if the solver gave up, or its values are not finite, 0 if the cell succeeded;
    error_discrete_ulp: in units in the last place of 1, in the cell's dtype;
    steps_back_over_forth: N' / N, the steps of a continuous adjoint's second solve over those of the first;
    losses_off: for a trained network, the largest relative difference of its losses from those of LEADER in the same
    group, over the first iterations that both have.
    For trained networks total_s, f_calls and steps_accepted are medians over the first iterations that the whole group
    has; total_s leaves out those at the start of a process. time_over_leader is the median ratio to LEADER's time of
    the same iteration, over all warm ones that both have, and _low and _high are the smallest and the largest:
    iterations of one turn are not independent rounds, so there is no interval.
    A ratio is NaN if one of its two cells is not comparable or was measured on another machine.
    """
    labels = group_labels(rows)
    peers = {machine_group(row): row for row in rows if row.cell.name == PEER and comparable(row)}
    floors = {(machine_group(row), row.gradient): row for row in rows if row.contender == FLOOR and comparable(row)}
    groups = {group: place for place, group in enumerate(dict.fromkeys(row.group_id for row in rows))}
    ordered = sorted(rows, key=lambda row: (groups[row.group_id], *display_place(row.cell.name)))
    trained: dict[MachineGroup, list[Measurement]] = {machine_group(row): [] for row in rows}
    for row in rows:
        if row.losses:
            trained[machine_group(row)].append(row)
    columns: dict[str, Any] = {}
    for row in ordered:  # by column: one dictionary per cell would take several times the memory
        line = {name: getattr(row, name) for name in _FIELDS}
        line |= _derived(row, labels, peers.get(machine_group(row)), floors.get((machine_group(row), row.gradient)))
        line |= _trained(row, trained[machine_group(row)])
        for name, value in line.items():
            columns.setdefault(name, []).append(value)
    for name in columns:  # one at a time, each list is freed when its array is made
        columns[name] = pd.Series(columns[name])
    return pd.DataFrame(columns, columns=None if columns else list(_FIELDS))


_FIELDS = tuple(f.name for f in fields(Measurement))


MachineGroup = tuple[str, str | None]


def machine_group(row: Measurement) -> MachineGroup:
    """Return the row's group and machine: only rows that share both are compared."""
    return row.group_id, row.environment


def lines_of(frame: pd.DataFrame) -> list[Line]:
    """Return the frame's lines as plain dictionaries, with None for missing values."""
    return [{str(k): None if _missing(v) else v for k, v in line.items()} for line in frame.to_dict("records")]


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def display_place(name: str) -> tuple[int, int, int, str]:
    """Return the sort key of a "contender gradient": by contender, then gradient, those without a record last."""
    contender, _, gradient = name.partition(" ")
    return (contender_place(contender), *gradient_place(gradient), name)


def comparable(row: Measurement) -> bool:
    """Return whether the cell succeeded and its forward solution agrees with the reference."""
    return row.status is Status.OK and not row.forward_disagrees


def group_labels(rows: Sequence[Measurement]) -> dict[str, str]:
    """Return the label of each group_id, with threads and seed if these differ among the rows."""
    varied = [axis for axis in ("threads", "seed") if len({getattr(row, axis) for row in rows}) > 1]
    return {
        row.group_id: ", ".join([row.cell.group_label, *(f"{axis} {getattr(row, axis)}" for axis in varied)])
        for row in rows
    }


def _statistics(name: str, row: Measurement, other: Measurement) -> Line:
    """Return a ratio of times and its statistics; without rounds in common, that of the medians and no more."""
    if row is other:
        return {name: ratio(row.total_s, other.total_s)}
    timing, unit = ({field: getattr(one, field) for field in TIMING} for one in (row, other))
    return time_statistics(name, timing, unit)


def _derived(row: Measurement, labels: dict[str, str], peer: Measurement | None, floor: Measurement | None) -> Line:
    derived: Line = dict.fromkeys((*RATIOS, *(f"{name}_{key}" for name in PAIRED for key in STATISTICS)))
    if comparable(row) and row.graph_bytes != 0:  # a field that costs nothing is no unit
        time, memory = _floor(row, floor)
        derived["time_over_floor"] = ratio(row.total_s, time)
        if floor is not None and floor.total_s:
            derived |= _statistics("time_over_floor", row, floor)
        derived["time_over_captured_floor"] = ratio(row.total_s, row.floor_captured_s)
        derived["memory_over_floor"] = ratio(row.peak_tensor_bytes, memory)
    if comparable(row) and peer is not None:
        derived |= _statistics("time_over_peer", row, peer)
        if row.peak_tensor_source == peer.peak_tensor_source:  # a fitted peak is not compared with an exact one
            derived["memory_over_peer"] = ratio(row.peak_tensor_bytes, peer.peak_tensor_bytes)
    f_calls = _sum(row.f_calls_forward, row.f_calls_backward)
    vjps = _sum(row.vjps_forward, row.vjps_backward)
    calls, kept = _sum(f_calls, vjps), row.kept_tensor_bytes
    return derived | {
        "group": labels[row.group_id],
        "name": row.cell.name,
        "setting_id": row.cell.setting_id,
        "comparable": comparable(row),
        "gave_up": {Status.DIVERGED: 1, Status.OK: 0}.get(row.status),
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
    """Return the columns that compare a trained network's row with the others of its group."""
    if not row.losses:
        return dict.fromkeys(("losses_off", *OVER_LEADER))
    shown: Line = dict.fromkeys(("losses_off", *OVER_LEADER, *OF_ONE_SOLVE))
    leader = next((other for other in group if other.cell.name == LEADER), None)
    if leader is not None:
        shown["losses_off"] = max(losses_off(row.losses, leader.losses or []), default=None)
    common = range(min(FIRST_ITERATIONS, *(len(other.losses or []) for other in group)))
    warm = [i for i in common if i not in (row.cold_iterations or [])] or list(common)
    if row.total_samples_s:
        shown["total_s"] = statistics.median(row.total_samples_s[i] for i in warm)
        ratios = (
            [] if leader is None or leader is row else iteration_ratios(*(_iterations(one) for one in (row, leader)))
        )
        if ratios:
            shown |= zip(OVER_LEADER, (statistics.median(ratios), min(ratios), max(ratios)), strict=True)
    for name, samples in (("f_calls", row.f_calls_samples), ("steps_accepted", row.steps_samples)):
        if samples:
            shown[name] = statistics.median_low(samples[i] for i in common)
    return shown


def _iterations(row: Measurement) -> Line:
    return {name: getattr(row, name) for name in ITERATIONS}


OVER_LEADER = ("time_over_leader", "time_over_leader_low", "time_over_leader_high")

OF_ONE_SOLVE = ("time_over_peer", "memory_over_peer", "vjps", "calls", "calls_per_stage", "f_calls_over_formula")
"""Columns without meaning for training: an iteration may solve several fields, not the same ones in all rows."""


def losses_off(losses: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the relative difference of each of the first FIRST_ITERATIONS losses from the other sequence's."""
    pairs = zip(losses[:FIRST_ITERATIONS], others[:FIRST_ITERATIONS], strict=False)
    return [abs(one - other) / abs(other) if other else abs(one) for one, other in pairs]


def _floor(row: Measurement, floor: Measurement | None) -> tuple[float | None, int | None]:
    """Return the floor in seconds and bytes, measured if possible, else estimated. Never mix fitted and exact peaks."""
    time, memory = row.floor_s, row.floor_tensor_bytes
    if floor is not None:
        time = floor.total_s or time
        if floor.peak_tensor_source == row.peak_tensor_source:
            memory = floor.peak_tensor_bytes or memory
    return time, memory


def ratio(value: float | None, unit: float | None) -> float | None:
    """Return value / unit, or None if either is unknown or the unit is zero."""
    return None if value is None or not unit else value / unit


def _sum(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
