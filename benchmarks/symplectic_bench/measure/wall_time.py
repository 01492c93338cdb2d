"""forward_s and backward_s: contenders of a group take turns in one process, A B C A B C.

A machine that slows down slows all alike, so ratios within a group hold. Between two clock readings there is only
forward() or only backward(); gradients are cleared, garbage is collected and torch is synchronised outside.
"""

import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from symplectic_bench.contenders.gradient_run import GradientRun
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.floor import VjpCall
from symplectic_bench.measure.warm_up import attempt, warming
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import diagnose

ENOUGH_S = 20.0
"""A group is not repeated further once it has run this long ..."""

FEWEST_ROUNDS = 3
"""... and this often."""

BARE_CALLS = 10
"""Bare calls between two clock readings: one is too short for the clock."""


def measure_wall_time(cells: Sequence[Cell], cache_dir: Path, warmup: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield what happens as it happens: {"cell": index, "begins": True}, then its sample or its failure.

    A sample is {"cell", "forward_s", "backward_s"}, or {"cell", "total_s"} where the two cannot be parted; a round also
    yields {"f_call_s", "vjp_call_s"}. Contenders that compile begin with a call of its own, {"cell", "compile_s"}.
    An index that began and did nothing more is the one that took the process down. Warm-up rounds yield no samples.
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
    start = time.perf_counter()
    for number in range(-warmup, repeats):
        if number >= FEWEST_ROUNDS and time.perf_counter() - start > ENOUGH_S:
            return
        for i in tuple(alive):
            shorter = warming(cells[i]) if number < 0 else None
            whole = partial(gradient_times, problem, cells[i])
            for value in turn(i, whole if shorter is None else partial(attempt, problem, shorter)):
                if number >= 0 or "begins" in value or "status" in value:
                    yield value
        if number >= 0:
            yield bare_call_times(problem)


def gradient_times(problem: Problem, cell: Cell) -> dict[str, float]:
    problem.clear_gradients()
    run = CONTENDERS[cell.contender].gradient(problem, cell)
    with no_garbage():
        if not isinstance(run, GradientRun):
            return {"total_s": seconds(run.complete, cell.device)}
        return {"forward_s": seconds(run.forward, cell.device), "backward_s": seconds(run.backward, cell.device)}


def compile_time(problem: Problem, cell: Cell) -> dict[str, float]:
    """The first call, compilers' caches on disk being empty."""
    with empty_compile_cache():
        return {"compile_s": sum(gradient_times(problem, cell).values())}


@contextlib.contextmanager
def empty_compile_cache() -> Iterator[None]:
    """torch.compile keeps what it compiled for the next process, which then only loads it. JAX does not."""
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
    """One call of f without a graph, and one of f with its vector-Jacobian product."""
    device = problem.y0.device.type
    with VjpCall(problem) as vjp, no_garbage():

        @torch.no_grad()
        def f_calls() -> None:
            for _ in range(BARE_CALLS):
                vjp.func(vjp.t, vjp.y)

        def vjp_calls() -> None:
            for _ in range(BARE_CALLS):
                vjp()

        return {
            "f_call_s": seconds(f_calls, device) / BARE_CALLS,
            "vjp_call_s": seconds(vjp_calls, device) / BARE_CALLS,
        }


def seconds(call: Callable[[], Any], device: str) -> float:
    """How long the call takes, until the device is done with it."""
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """None at first, and none collected inside, as timeit does it: whose is collected when would be chance."""
    gc.collect()  # takes longer than a small solve where JAX is loaded: once for both passes
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
