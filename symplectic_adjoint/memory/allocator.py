"""What torch's allocator holds while code runs: the peak and what is left, in bytes of live tensors.

On CUDA the allocator keeps count itself. On the CPU every allocation and release is an event of torch's profiler,
which is told to record nothing else; the peak is the largest running sum. Both count what is allocated after the
start, so tensors that were there before are not in it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler import record_function

Phase = Callable[[], Any]

_LOG_LEVEL = "KINETO_LOG_LEVEL"

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
    # Imported here because they are torch's own business: nobody who only solves should depend on them.
    from torch._C._autograd import _disable_profiler, _enable_profiler, _prepare_profiler
    from torch._C._profiler import (
        ProfilerActivity,
        ProfilerConfig,
        ProfilerState,
        RecordScope,
        _ExperimentalConfig,
    )

    config = ProfilerConfig(
        ProfilerState.KINETO,
        False,  # record_shapes
        True,  # profile_memory
        False,  # with_stack
        False,  # with_flops
        False,  # with_modules
        _ExperimentalConfig(),
        "",  # trace_id
    )
    with _quiet():
        _prepare_profiler(config, {ProfilerActivity.CPU})
    # User scopes are our marks. Recording the operators too would triple the time and memory of the events.
    scopes = {RecordScope.USER_SCOPE}
    _enable_profiler(config, {ProfilerActivity.CPU}, scopes)  # pyright: ignore[reportCallIssue]: stub lags
    try:
        for i, phase in enumerate(phases):
            with record_function(f"{_MARK}{i}"):
                phase()
    finally:
        recorded = _disable_profiler()
    return _sum_up(recorded.events(), len(phases))


@contextmanager
def _quiet() -> Iterator[None]:
    """The profiler, which reads this when it is first used, writes of each start and stop to the user's terminal."""
    given = os.environ.get(_LOG_LEVEL)
    os.environ.setdefault(_LOG_LEVEL, "6")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_LOG_LEVEL]


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
