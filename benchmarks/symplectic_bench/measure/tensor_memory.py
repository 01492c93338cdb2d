"""peak_tensor_bytes: the most bytes of live tensors during a gradient, above those live when it began.

That is everything that the gradient itself allocates: states, graphs, the gradients left in .grad. The problem (its
parameters, y0, the data) was there before, and what is made once a process does not count: a small gradient is
computed first. The figure is exact: a second run gives the same.
"""

import gc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from symplectic_adjoint import watch_memory
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.gradient_run import GradientRun
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.floor import measure_floor
from symplectic_bench.measure.warm_up import attempt, short, warm_up
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell

EVENT_LIMIT = 700_000
"""Allocator events that one profile may hold: some 2 GB and 20 s."""

SOLVER_EVENTS_PER_CALL = 12
"""Allocator events of the solver's own arithmetic per f call, roughly: only to predict whether a profile fits."""

FIT_TOLERANCE = 0.01
"""How far, relatively, the middle of three measured points may lie off the line that is reported."""


def measure_tensor_memory(cell: Cell, cache_dir: Path, counts: Counts) -> Iterator[dict[str, Any]]:
    """Yield the floor's fields, then the peaks'. `counts` are those of the same cell, to predict the events."""
    in_torch = CONTENDERS[cell.contender].framework == "torch"
    warm_up(cell if in_torch else replace(cell, contender="ours"), cache_dir)
    problem = build(cell, cache_dir)
    floor, events_per_call = measure_floor(problem)
    yield asdict(floor)
    if not in_torch:
        yield {"reason": f"tensor memory not measured: {cell.contender} does not use torch's allocator"}
        return
    assert counts.floor_calls is not None, "who uses torch can be counted"
    calls, vjps = counts.floor_calls
    predicted = round(calls * (0.5 * events_per_call + SOLVER_EVENTS_PER_CALL))  # without the product, about half
    predicted += vjps * (events_per_call + SOLVER_EVENTS_PER_CALL)
    if cell.device == "cuda" or predicted <= EVENT_LIMIT:
        yield {**peaks(problem, cell), "peak_tensor_source": "exact"}
    elif cell.steps is None:
        yield {"reason": f"tensor memory not measured: about {predicted} allocator events, more than {EVENT_LIMIT}"}
    else:
        yield fitted_peaks(problem, cell, predicted)


def peaks(problem: Problem, cell: Cell) -> dict[str, int]:
    """Run the gradient once under watch, after a short one: "auto" measures f in the first solve of its kind."""
    attempt(problem, short(cell))
    run = CONTENDERS[cell.contender].gradient(problem, cell)
    assert isinstance(run, GradientRun), "who uses torch has a forward and a backward pass"
    gc.collect()  # Garbage of before must not be released in the window.
    forward, backward = watch_memory(cell.device, run.forward, run.backward)
    measured = {
        "peak_tensor_bytes": max(forward.peak_bytes, backward.peak_bytes),
        "forward_peak_tensor_bytes": forward.peak_bytes,
        "kept_tensor_bytes": forward.left_bytes,
    }
    if cell.device == "cuda":
        measured["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return measured


def fitted_peaks(problem: Problem, cell: Cell, predicted: int) -> dict[str, Any]:
    """Three smaller numbers of steps, and the line through them at the cell's own number.

    Every peak is a constant plus so much a step, once there are enough steps; where the three do not lie on a line
    nothing is reported but the reason.
    """
    assert cell.steps is not None, "only a fixed number of steps can be made smaller"
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
