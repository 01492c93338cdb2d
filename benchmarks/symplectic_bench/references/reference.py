"""What a gradient is compared with when the question is whether it is the one that was wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.oracles.twin import doubles


@dataclass(frozen=True)
class Reference:
    """y(t[-1]), the loss and its gradient, in float64.

    source: "closed form", "Taylor series" or "self-convergence". gradient is by y0, then by each parameter, and rest
    what the doubles leave of it: together they hold thirty digits. by_times is dL/dt, one entry a time. bar: how far
    off the gradient may be, relative.
    """

    source: str
    final_state: Tensor
    loss: float
    gradient: list[Tensor]
    rest: list[Tensor]
    by_times: Tensor
    bar: float

    @classmethod
    def of_numbers(
        cls,
        source: str,
        final_state: np.ndarray,
        loss: float,
        gradient: Sequence[np.ndarray],
        by_times: np.ndarray,
        bar: float,
    ) -> Self:
        """From arrays of fifty-digit numbers."""
        pairs = [doubles(g) for g in gradient]
        near, rest = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return cls(source, doubles(final_state)[0], loss, near, rest, doubles(by_times)[0], bar)

    def error_of(self, gradient: Sequence[Tensor]) -> float:
        """How far off a gradient is, relative, in the 2-norm of all entries together."""
        found = [x.detach().to("cpu", torch.float64) for x in gradient]
        return self._distance(found, [torch.zeros_like(x) for x in self.rest])

    def distance(self, other: "Reference") -> float:
        """How far off another reference is from this one, in the same norm."""
        return self._distance(other.gradient, other.rest)

    def _distance(self, near: Sequence[Tensor], rest: Sequence[Tensor]) -> float:
        parts = zip(near, rest, self.gradient, self.rest, strict=True)
        off = torch.cat([((x - y) + (dx - dy)).flatten() for x, dx, y, dy in parts])  # x - y is exact where it matters
        length = torch.linalg.vector_norm(torch.cat([y.flatten() for y in self.gradient]))
        return float(torch.linalg.vector_norm(off) / length)
