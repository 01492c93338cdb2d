"""A reference: the converged gradient of the continuous problem, with its error bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.oracles.twin import doubles


@dataclass(frozen=True)
class Reference:
    """The final state y(t[-1]), the loss and its gradient, in float64.

    source: "closed form", "Taylor series", "Radau" or "self-convergence".
    gradient: dL/dy0, then dL/dp for each parameter p, rounded to doubles; rest: the remainders, also as doubles, so
    that the two together hold thirty digits.
    by_times: dL/dt, one entry per time.
    bar: the relative error bar of the gradient, in the norm of error_of.
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
        """Make a reference from arrays of fifty-digit numbers."""
        pairs = [doubles(g) for g in gradient]
        near, rest = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return cls(source, doubles(final_state)[0], loss, near, rest, doubles(by_times)[0], bar)

    def error_of(self, gradient: Sequence[Tensor]) -> float:
        """Return the relative error of a gradient, which may have dL/dt last, in the 2-norm of all entries together."""
        found = [x.detach().to("cpu", torch.float64) for x in gradient]
        gradient, rest = list(self.gradient), list(self.rest)
        if len(found) == len(gradient) + 1:  # by the times too
            gradient, rest = [*gradient, self.by_times], [*rest, torch.zeros_like(self.by_times)]
        parts = zip(found, gradient, rest, strict=True)
        off = torch.cat([((x - y) - dy).flatten() for x, y, dy in parts])  # x - y is exact if the two are close
        length = torch.linalg.vector_norm(torch.cat([y.flatten() for y in gradient]))
        return float(torch.linalg.vector_norm(off) / length)
