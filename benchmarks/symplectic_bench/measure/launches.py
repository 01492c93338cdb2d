"""How often a gradient on CUDA waits for the card, and what it launches there."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ACTIVITIES = (ProfilerActivity.CPU, ProfilerActivity.CUDA)

LAUNCHES = {"launches": "LaunchKernel", "graph_launches": "GraphLaunch", "copies": "Memcpy"}
"""The calls of CUDA's interface that are counted, by a part of their names."""


def waits(run: Callable[[], Any]) -> dict[str, int]:
    """Return {"waits"}, how often torch waits for the card while it runs."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"waits": sum("synchroniz" in str(one.message) for one in caught)}


def launches(run: Callable[[], Any]) -> dict[str, int]:
    """Return the numbers of LAUNCHES while it runs, by torch's profiler."""
    torch.cuda.synchronize()
    with profile(activities=ACTIVITIES) as profiler:
        run()
        torch.cuda.synchronize()
    events = profiler.key_averages()
    own = [event for event in events if event.key.startswith("cu")]  # cudaLaunchKernel, cuLaunchKernelEx, ..
    return {name: sum(event.count for event in own if part in event.key) for name, part in LAUNCHES.items()}
