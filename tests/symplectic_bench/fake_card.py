"""A card that is not there: torch finds a CUDA device, whose tensors stay on the CPU and whose allocator never changes.

For programs of their own, and for the server that their processes are forked from, which imports
`install_fake_card`.
"""

import os

import torch

from symplectic_bench.measure import launches

ALLOCATED, PEAK_ALLOCATED, RESERVED, PEAK_RESERVED = 100, 700, 1_000, 5_000

FORKS = "FAKE_CARD_FORKS"
"""The variable of the environment with the name of a file to which each forked process adds its number."""


def moving_nowhere(to):
    """Replace the device of a call of `to`."""

    def moved(self, *args, **kwargs):
        kwargs = {name: "cpu" if name == "device" else value for name, value in kwargs.items()}
        return to(self, *("cpu" if arg == "cuda" else arg for arg in args), **kwargs)

    return moved


def note_process():
    with open(os.environ[FORKS], "a") as forks:
        forks.write(f"{os.getpid()}\n")


def install():
    """Replace functions of torch in this process, and in those forked from it."""
    torch.Tensor.to = moving_nowhere(torch.Tensor.to)
    torch.nn.Module.to = moving_nowhere(torch.nn.Module.to)
    torch.cuda.is_available = lambda: True
    torch.cuda.memory_allocated = lambda: ALLOCATED
    torch.cuda.memory_reserved = lambda: RESERVED
    torch.cuda.max_memory_allocated = lambda: PEAK_ALLOCATED
    torch.cuda.max_memory_reserved = lambda: PEAK_RESERVED
    torch.cuda.set_sync_debug_mode = lambda mode: None
    launches.ACTIVITIES = (torch.profiler.ProfilerActivity.CPU,)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, lambda: None)
    if FORKS in os.environ:
        os.register_at_fork(after_in_child=note_process)
