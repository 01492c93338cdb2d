"""Watching torch's allocator: the peak and the final number of bytes in live tensors while code runs.

On CUDA the allocator keeps its own counters. On the CPU torch's profiler records every allocation and release, and
little else; the peak is the largest running sum. Tensors allocated before the start are not counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler import record_function

from symplectic_adjoint._torch_internals import allocation_events

Phase = Callable[[], Any]

_MARK = "symplectic_adjoint.memory.allocator phase "


@dataclass(frozen=True)
class Traffic:
    """The memory traffic of one phase, in bytes above those live when the first phase began.

    peak_bytes: the most live at once. left_bytes: live at the end of the phase. events: the number of allocations and
    releases, 0 on CUDA.
    """

    peak_bytes: int
    left_bytes: int
    events: int


def watch_memory(device: str, *phases: Phase) -> list[Traffic]:
    """Call the phases in turn, discard their results and return the traffic of each, on "cpu" or "cuda".

    On the CPU this runs torch's profiler, which cannot run twice at once. It keeps about 3 kB per event: too much for a
    million allocations.
    """
    return _watch_cuda(phases) if device == "cuda" else _watch_cpu(phases)


def _watch_cpu(phases: tuple[Phase, ...]) -> list[Traffic]:
    with allocation_events() as events:
        for i, phase in enumerate(phases):
            with record_function(f"{_MARK}{i}"):
                phase()
    return _sum_up(events, len(phases))


def _sum_up(events: list[Any], phases: int) -> list[Traffic]:
    ends = {e.name(): e.start_ns() + e.duration_ns() for e in events if e.name().startswith(_MARK)}
    bounds = [ends[f"{_MARK}{i}"] for i in range(phases)]
    # sorted() is stable: events with equal times stay in the order in which they were recorded.
    moves = sorted(((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"), key=lambda move: move[0])
    traffic, live, n = [], 0, 0
    for bound in bounds:
        peak, first = live, n
        while n < len(moves) and moves[n][0] <= bound:
            live += moves[n][1]
            peak = max(peak, live)
            n += 1
        traffic.append(Traffic(peak, live, events=n - first))
    return traffic


def _watch_cuda(phases: tuple[Phase, ...]) -> list[Traffic]:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # so that the phases start without cached blocks
    start = torch.cuda.memory_allocated()
    traffic = []
    for phase in phases:
        torch.cuda.reset_peak_memory_stats()
        phase()
        torch.cuda.synchronize()
        peak, left = torch.cuda.max_memory_allocated() - start, torch.cuda.memory_allocated() - start
        traffic.append(Traffic(peak, left, events=0))
    return traffic
