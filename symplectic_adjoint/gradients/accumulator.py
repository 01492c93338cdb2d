"""dL/dtheta while it is being summed: one tensor a parameter, never one a stage."""

from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.state import HALVES
from symplectic_adjoint.transforms import batched


class Accumulator:
    """Sums gradients in place. An entry stays None as long as nothing was added to it.

    Those of half precision are summed in float32.
    """

    def __init__(self, length: int):
        self.total: list[Tensor | None] = [None] * length

    def add(self, bars: Sequence[Tensor | None], weight: float = 1.0) -> None:
        """total += weight bars, which are left alone: autograd may hand out one tensor for two inputs."""
        into: list[Tensor] = []
        added: list[Tensor] = []
        for i, bar in enumerate(bars):
            if bar is None:
                continue
            total = self.total[i]
            if total is None:
                self.total[i] = (bar.float() if bar.dtype in HALVES else bar) * weight
            else:
                into.append(total)
                added.append(bar)
        if any(map(batched, added)):  # a batch of cotangents, for which torch has no fused sum
            for total, bar in zip(into, added, strict=True):
                total.add_(bar, alpha=weight)
        elif into:
            torch._foreach_add_(into, added, alpha=weight)  # pyright: ignore[reportPrivateImportUsage]
