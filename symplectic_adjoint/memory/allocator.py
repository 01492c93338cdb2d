"""What torch's allocator holds while code runs: the peak and what is left, in bytes of live tensors.

On CUDA the allocator keeps count itself. On the CPU every allocation and release is an event of torch's profiler,
which is told to record nothing else; the peak is the largest running sum. Both count what is allocated after the
start, so tensors that were there before are not in it.
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
    """One phase: the most bytes live at once, those live at its end, and the number of events (0 on CUDA).

    Bytes are above those live when the first phase began.
    """

    peak_bytes: int
    left_bytes: int
    events: int


def watch_memory(device: str, *phases: Phase) -> list[Traffic]:
    """Calls the phases one after the other and says what each did, on "cpu" or "cuda". What they return is dropped.

    On the CPU torch's profiler is used: it can only run once at a time, and its events take some 3 kB each, which makes
    a million allocations too many.
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
    # sorted() is stable: events of one nanosecond stay in the order in which they were recorded.
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
    torch.cuda.empty_cache()  # so that what is reserved is for this alone
    start = torch.cuda.memory_allocated()
    traffic = []
    for phase in phases:
        torch.cuda.reset_peak_memory_stats()
        phase()
        torch.cuda.synchronize()
        peak, left = torch.cuda.max_memory_allocated() - start, torch.cuda.memory_allocated() - start
        traffic.append(Traffic(peak, left, events=0))
    return traffic
