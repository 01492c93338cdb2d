"""Watching torch's allocator: the peak and the final number of bytes in live tensors while code runs.

On CUDA the allocator keeps its own counters. On the CPU torch's profiler records every allocation and release, and
little else; the peak is the largest running sum. Tensors allocated before the start are not counted, nor are their
releases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler import record_function

from symplectic_adjoint._torch_internals import ProfilerEvent, allocation_events, profiler_is_running
from symplectic_adjoint.memory.profiler_turn import alone

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

    On the CPU this runs torch's profiler, in one thread at a time: another thread that calls this waits. It keeps about
    3 kB per event, too much for a million allocations, and records those of the calling thread and of autograd. While
    it runs, warnings that torch's C++ code would log to stderr are not logged.

    Raises RuntimeError if the calling thread is already being profiled, or if it has waited for ten minutes.
    """
    return _watch_cuda(phases) if device == "cuda" else _watch_cpu(phases)


def _watch_cpu(phases: tuple[Phase, ...]) -> list[Traffic]:
    if profiler_is_running():
        raise RuntimeError(
            "watch_memory uses torch's profiler, which is already running in this thread: stop it, or measure outside "
            "of the profile or of the other watch_memory"
        )
    with alone(), allocation_events() as events:
        for i, phase in enumerate(phases):
            with record_function(f"{_MARK}{i}"):
                phase()
    return _sum_up(events, len(phases))


def _sum_up(events: list[ProfilerEvent], phases: int) -> list[Traffic]:
    ends = {e.name: e.end_ns for e in events if e.name.startswith(_MARK)}
    bounds = [ends[f"{_MARK}{i}"] for i in range(phases)]
    # sorted() is stable: events with equal times stay in the order in which they were recorded.
    moves = sorted((e for e in events if e.name == "[memory]"), key=lambda e: e.start_ns)
    traffic, blocks, live, n = [], dict[int, int](), 0, 0
    for bound in bounds:
        peak, first = live, n
        while n < len(moves) and moves[n].start_ns <= bound:
            live += _move(blocks, moves[n])
            peak = max(peak, live)
            n += 1
        traffic.append(Traffic(peak, live, events=n - first))
    return traffic


def _move(blocks: dict[int, int], move: ProfilerEvent) -> int:
    """Enter an allocation or release in the table of live blocks, and return by how much it changes their bytes.

    The release of a block that is not in the table changes nothing: the block is older. An allocation at the address of
    a block in the table shows that the block was released unseen, in a thread that is not profiled.
    """
    before = blocks.pop(move.address, 0)
    if move.nbytes < 0:
        return -before
    blocks[move.address] = move.nbytes
    return move.nbytes - before


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
