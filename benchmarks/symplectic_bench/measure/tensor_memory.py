"""peak_tensor_bytes: the largest number of bytes of live tensors during a gradient, above those live when it began.

It counts everything that the gradient allocates: states, graphs, the gradients left in .grad. It excludes the problem
(parameters, y0, data), which exists beforehand, and allocations made once per process, because a small gradient is
computed first. What a contender that captures keeps for later gradients is part of its peaks, and is also given apart.
The figure is exact: a second run gives the same.
"""

import gc
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from symplectic_adjoint import watch_memory
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.gradient_run import GradientRun
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.floor import measure_floor
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.measure.warm_up import run_once, shortest, warm_up
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell

EVENT_LIMIT = 700_000
"""Allocator events that one profile may record: about 2 GB and 20 s."""

SOLVER_EVENTS_PER_CALL = 12
"""Approximate number of allocator events of the solver's arithmetic per f call, to predict the size of a profile."""

FIT_TOLERANCE = 0.01
"""The largest relative distance of the three measured points from the fitted line."""


def measure_errors_and_memory(cell: Cell, cache_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the values of measure_gradient_error, {"ends": True}, and those of measure_tensor_memory.

    For CUDA, where it is the allocator that counts, and a process takes seconds to start.
    """
    yield from measure_gradient_error(cell, cache_dir)
    yield {"ends": True}
    yield from measure_tensor_memory(cell, cache_dir)


def measure_tensor_memory(cell: Cell, cache_dir: Path, counts: Counts | None = None) -> Iterator[dict[str, Any]]:
    """Yield the floor's fields, then the peaks. `counts` are those of the same cell, to predict its events on a CPU."""
    in_torch = CONTENDERS[cell.contender].framework == "torch"
    warm_up(cell if in_torch else replace(cell, contender="ours", gradient="backprop"), cache_dir)
    problem = build(cell, cache_dir)
    floor, events_per_call = measure_floor(problem)
    yield asdict(floor)
    if not in_torch:
        yield {"reason": f"tensor memory not measured: {cell.contender} does not use torch's allocator"}
        return
    reserved = reserved_bytes() if cell.device == "cuda" else 0
    left = left_by_capture(problem, cell) if CONTENDERS[cell.contender].captures else {}
    if cell.device == "cuda":
        yield {**above(left, peaks(problem, cell)), "peak_tensor_source": "exact"}
        yield {"peak_reserved_bytes": torch.cuda.max_memory_reserved() - reserved}
        return
    assert counts is not None and counts.floor_calls is not None, "contenders that use torch are counted"
    calls, vjps = counts.floor_calls
    predicted = round(calls * (0.5 * events_per_call + SOLVER_EVENTS_PER_CALL))  # without the VJP, about half
    predicted += vjps * (events_per_call + SOLVER_EVENTS_PER_CALL)
    if predicted <= EVENT_LIMIT:
        yield {**above(left, peaks(problem, cell)), "peak_tensor_source": "exact"}
    elif cell.steps is None:
        yield {"reason": f"tensor memory not measured: about {predicted} allocator events, more than {EVENT_LIMIT}"}
    else:
        yield above(left, fitted_peaks(problem, cell, predicted))


PEAKS = ("peak_tensor_bytes", "forward_peak_tensor_bytes", "kept_tensor_bytes")


def left_by_capture(problem: Problem, cell: Cell) -> dict[str, int]:
    """Run a first gradient, and return {"left_tensor_bytes"}: live after it, for later ones.

    These are the static buffers of programs, and on CUDA the memory that their graphs reserve and nothing else can use.
    """
    gc.collect()
    before = graph_bytes(cell.device)
    (first,) = watch_memory(cell.device, partial(run_once, problem, shortest(cell)))
    return {"left_tensor_bytes": first.left_bytes + max(0, graph_bytes(cell.device) - before)}


def graph_bytes(device: str) -> int:
    """Return the bytes that CUDA graphs reserve without a live tensor in them."""
    segments = torch.cuda.memory_snapshot() if device == "cuda" else []
    own = [segment for segment in segments if tuple(segment["segment_pool_id"]) != (0, 0)]
    return sum(segment["total_size"] - segment["allocated_size"] for segment in own)


def above(left: dict[str, int], measured: dict[str, Any]) -> dict[str, Any]:
    """Return the measured peaks above what was live before the first gradient."""
    raised = {name: measured[name] + left["left_tensor_bytes"] for name in PEAKS if left and name in measured}
    return {**measured, **raised, **left}


def reserved_bytes() -> int:
    """Return the bytes that torch's allocator has on the card when it caches none."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def peaks(problem: Problem, cell: Cell) -> dict[str, int]:
    """Profile one gradient and return bytes. Run a short one first: "auto" measures f in the first solve of a kind."""
    run_once(problem, shortest(cell))
    run = CONTENDERS[cell.contender].gradient(problem, cell)
    assert isinstance(run, GradientRun), "contenders that use torch have a forward and a backward pass"
    gc.collect()  # earlier garbage must not be released while memory is watched
    forward, backward = watch_memory(cell.device, run.forward, run.backward)
    return {
        "peak_tensor_bytes": max(forward.peak_bytes, backward.peak_bytes),
        "forward_peak_tensor_bytes": forward.peak_bytes,
        "kept_tensor_bytes": forward.left_bytes,
    }


def fitted_peaks(problem: Problem, cell: Cell, predicted: int) -> dict[str, Any]:
    """Measure at three smaller numbers of steps, and return the fitted lines at the cell's own number.

    With enough steps every peak is linear in their number. If the three points are not on a line, return the reason.
    """
    assert cell.steps is not None, "only fixed steps can be reduced in number"
    smallest = max(1, cell.steps * EVENT_LIMIT // (8 * predicted))
    numbers = [smallest, 2 * smallest, 4 * smallest]
    points = [peaks(problem, replace(cell, steps=n)) for n in numbers]
    fitted: dict[str, Any] = {}
    for name in points[0]:
        values = [point[name] for point in points]
        slope, intercept = np.polyfit(numbers, values, deg=1)
        off = max(abs(intercept + slope * n - v) / max(v, 1) for n, v in zip(numbers, values, strict=True))
        if off > FIT_TOLERANCE:
            return {"reason": f"tensor memory not measured: {name} at {numbers} steps is {values}, not on a line"}
        fitted[name] = round(float(intercept + slope * cell.steps))
    return {**fitted, "peak_tensor_source": "fit"}
