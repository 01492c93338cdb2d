"""forward_s and backward_s: contenders of a group take turns in one process, A B C A B C.

A machine that slows down slows all contenders alike, so ratios within a group hold. Only forward() or only backward()
runs between two clock readings; gradients are cleared, garbage is collected and torch is synchronised outside.
"""

import contextlib
import gc
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from symplectic_bench.contenders.gradient_run import GradientRun
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.floor import BareCalls
from symplectic_bench.measure.warm_up import run_once, warm_up_cell
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import diagnose

TIME_LIMIT_S = 20.0
"""A group gets no further rounds once it has run this long and has had as many as its size requires:"""

ROUNDS_ALONE = 3
"""of one cell, which is compared with none; ..."""

ROUNDS_IN_TURNS = 12
"""... of several, enough for verdicts on 102 comparisons (1 + log2(20 m) rounds for m of them)."""

BARE_CALLS = 10
"""Bare calls between two clock readings: a single call is too short to time."""

REPLAYS = 10
"""Replays of a graph of BARE_CALLS between two clock readings, so that waiting for the end counts little ..."""

CAPTURED_ROUNDS = 7
"""... and the number of such pairs of readings."""


def measure_wall_time(cells: Sequence[Cell], cache_dir: Path, warmup: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Time the cells of a group in turns. Each turn yields {"cell": index, "begins": True}, then a sample or a failure.

    A sample is {"cell", "forward_s", "backward_s"}, or {"cell", "total_s"} if the passes cannot be separated. A round
    also yields the bare_call_times. Contenders that compile or capture start with a separate call, {"cell",
    "compile_s"}. If the process dies, the cell that began last killed it. Warm-up rounds yield no samples. On CUDA the
    rounds are followed by {"timed": True}, then the captured_call_times: a failed capture may end the process.
    """
    problem = build(cells[0], cache_dir)
    alive = list(range(len(cells)))

    def turn(i: int, sample: Callable[[], dict[str, float] | None]) -> Iterator[dict[str, Any]]:
        yield {"cell": i, "begins": True}
        try:
            found = sample()
        except Exception as error:
            status, reason = diagnose(error)
            alive.remove(i)
            yield {"cell": i, "status": status.value, "reason": reason}
        else:
            yield {"cell": i, **(found or {})}

    for i, cell in enumerate(cells):
        if CONTENDERS[cell.contender].compiles:
            yield from turn(i, partial(compile_time, problem, cell))
    start, fewest = time.perf_counter(), ROUNDS_IN_TURNS if len(cells) > 1 else ROUNDS_ALONE
    for number in range(-warmup, repeats):
        if number >= fewest and time.perf_counter() - start > TIME_LIMIT_S:
            break
        for i in tuple(alive):
            shorter = warm_up_cell(cells[i]) if number < 0 else None
            whole = partial(gradient_times, problem, cells[i])
            for value in turn(i, whole if shorter is None else partial(run_once, problem, shorter)):
                if number >= 0 or "begins" in value or "status" in value:
                    yield value
        if number >= 0:
            yield bare_call_times(problem)
    if cells[0].device == "cuda":
        yield {"timed": True}
        yield captured_call_times(problem)


def gradient_times(problem: Problem, cell: Cell) -> dict[str, float]:
    """Time one gradient: {"forward_s", "backward_s"}, or {"total_s"} if the passes cannot be separated.

    On the CPU also {"backward_cpu_s", "backward_waits"}: the time that the backward pass computes, and how often it
    waits. A busy machine changes neither much.
    """
    problem.clear_gradients()
    run = CONTENDERS[cell.contender].gradient(problem, cell)
    with garbage_collection_off():
        if not isinstance(run, GradientRun):
            return {"total_s": seconds(run.complete, cell.device)}
        forward_s = seconds(run.forward, cell.device)
        before_s, before = time.process_time(), waits()
        backward_s = seconds(run.backward, cell.device)
        cost = {"backward_cpu_s": time.process_time() - before_s, "backward_waits": waits() - before}
        return {"forward_s": forward_s, "backward_s": backward_s, **(cost if cell.device == "cpu" else {})}


def compile_time(problem: Problem, cell: Cell) -> dict[str, float]:
    """Time the first call, with the compiler's cache on disk empty: {"compile_s"}."""
    with empty_compile_cache():
        found = gradient_times(problem, cell)
    return {"compile_s": sum(found[name] for name in ("total_s", "forward_s", "backward_s") if name in found)}


@contextlib.contextmanager
def empty_compile_cache() -> Iterator[None]:
    """Give torch.compile an empty cache on disk, so that it loads no earlier compilations. JAX has none."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def bare_call_times(problem: Problem) -> dict[str, float]:
    """Time one f call without a graph, and one with its vector-Jacobian product: {"f_call_s", "vjp_call_s"}.

    Also {"f_call_cpu_s", "vjp_call_cpu_s"}, the processor's time of this process for the same calls.
    """
    device, found = problem.y0.device.type, {}
    for name, calls in bare_calls(problem).items():
        with calls, garbage_collection_off():
            before_s = time.process_time()
            found[f"{name}_s"] = seconds(calls, device) / BARE_CALLS
            found[f"{name}_cpu_s"] = (time.process_time() - before_s) / BARE_CALLS
    return found


def captured_call_times(problem: Problem) -> dict[str, float] | dict[str, str]:
    """Time the same calls in CUDA graphs: {"f_call_captured_s", "vjp_call_captured_s"}, each the median of its samples.

    {"floor_captured_reason": ...} if they cannot be captured.
    """
    device, found = problem.y0.device.type, {}
    try:
        for name, calls in bare_calls(problem).items():
            with calls, garbage_collection_off():
                replay = calls.captured()

                def replays(replay: Callable[[], None] = replay) -> None:
                    for _ in range(REPLAYS):
                        replay()

                replays()
                samples = [seconds(replays, device) for _ in range(CAPTURED_ROUNDS)]
            found[f"{name}_captured_s"] = statistics.median(samples) / (REPLAYS * BARE_CALLS)
    except Exception as error:
        _, reason = diagnose(error)
        return {"floor_captured_reason": f"the bare calls were not captured: {reason}"}
    return found


def bare_calls(problem: Problem) -> dict[str, BareCalls]:
    """Return BARE_CALLS calls of f, and as many with their vector-Jacobian products."""
    return {"f_call": BareCalls(problem, f_calls=BARE_CALLS), "vjp_call": BareCalls(problem, vjps=BARE_CALLS)}


def waits() -> int:
    """Return how often this thread has given up its core so far, to sleep or to wait for a lock, file or thread."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def seconds(call: Callable[[], Any], device: str) -> float:
    """Return the time of the call in seconds, until the device has finished."""
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


@contextlib.contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Collect garbage, then turn collection off inside the block, as timeit does: it runs at random times."""
    gc.collect()  # with JAX loaded it takes longer than a small solve: once for both passes
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
