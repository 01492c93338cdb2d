"""peak_rss_bytes: the kernel's high-water mark of the process's memory during a gradient, above its baseline.

Unlike the tensor figure it includes everything: Python's objects, thread stacks, and the gaps that malloc leaves beside
aligned blocks, which with glibc can be as large as the tensors. The baseline is measured after a small gradient, so
that code is already in memory, and after the problem is built. memory-profiler samples the curve over time from a
separate process.
"""

import contextlib
import ctypes
import gc
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

from memory_profiler import memory_usage

from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.warm_up import warm_up
from symplectic_bench.problems import build
from symplectic_bench.spec.cell import Cell

SAMPLE_EVERY_S = 0.01
CURVE_POINTS = 64
"""The largest number of points in the recorded curve."""

MIB = 2**20


def measure_resident_memory(cell: Cell, cache_dir: Path) -> dict[str, Any]:
    """Run the gradient once. The high-water mark misses no peak; the curve may miss peaks shorter than 10 ms."""
    warm_up(cell, cache_dir)
    problem = build(cell, cache_dir)
    run = CONTENDERS[cell.contender].gradient(problem, cell)
    _release_free_memory()

    began = time.time()

    def gradient() -> None:
        nonlocal began
        began = time.time()  # memory-profiler's clock; the profiler takes a moment to start
        run.complete()

    measured: Any = (gradient, (), {})  # the library annotates no argument
    baseline = reset_high_water_bytes()
    samples = memory_usage(measured, interval=SAMPLE_EVERY_S, timestamps=True, include_children=False, max_iterations=1)
    peak = high_water_bytes()
    curve = [(moment - began, round(mib * MIB) - baseline) for mib, moment in samples if moment >= began]
    return {
        "peak_rss_bytes": max(0, peak - baseline),
        "rss_curve_peak_bytes": max(grown for _, grown in curve),
        **_thinned(curve),
    }


def reset_high_water_bytes() -> int:
    """Reset the high-water mark to the memory resident now, and return it, in bytes.

    If the kernel does not allow a reset (not Linux, or a sandbox), the present mark is the baseline, so a peak below an
    earlier one is reported as zero.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return high_water_bytes()


def high_water_bytes() -> int:
    """Return the peak of resident memory since the last reset, or since the process began, in bytes."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found is not None:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _release_free_memory() -> None:
    """Return memory freed by the warm-up to the system: if it were reused, it would not count as growth."""
    gc.collect()
    if sys.platform == "linux":
        # glibc keeps freed memory until malloc_trim is called; other C libraries do not have it.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)
        trim(0)


def _thinned(curve: list[tuple[float, int]]) -> dict[str, Any]:
    """Thin the curve to at most CURVE_POINTS points, each the highest of a run of neighbours, so the peak is kept."""
    stride = -(-len(curve) // CURVE_POINTS)
    kept = [max(curve[i : i + stride], key=lambda point: point[1]) for i in range(0, len(curve), stride)]
    return {"rss_curve_s": [round(s, 4) for s, _ in kept], "rss_curve_bytes": [grown for _, grown in kept]}
