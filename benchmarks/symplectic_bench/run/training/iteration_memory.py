"""The memory of a training iteration on CUDA, by the allocator's own counters, which cost no time."""

from dataclasses import dataclass
from typing import Self

import torch

from symplectic_bench.tasks import Task


@dataclass
class IterationMemory:
    """The bytes in live tensors above `level`, those of network, data and optimizer.

    Of an iteration that is not the first of its process: once-only allocations, such as cuBLAS's workspaces, are made.
    """

    level: int
    forward_peak: int = 0
    kept: int = 0

    @classmethod
    def begin(cls, task: Task) -> Self:
        """Begin before the forward pass."""
        task.release_iteration()
        torch.cuda.reset_peak_memory_stats()
        return cls(torch.cuda.memory_allocated())

    def after_forward(self) -> None:
        """Read the counters between the passes."""
        self.forward_peak, self.kept = (
            torch.cuda.max_memory_allocated() - self.level,
            torch.cuda.memory_allocated() - self.level,
        )

    def after_backward(self) -> dict[str, int]:
        """Return the measurements, after the backward pass."""
        return {
            "peak_tensor_bytes": torch.cuda.max_memory_allocated() - self.level,
            "forward_peak_tensor_bytes": self.forward_peak,
            "kept_tensor_bytes": self.kept,
        }
