"""Collecting the outputs of a solve, and the record of which step each one came from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.timeline import Timeline
from symplectic_adjoint.steps.runge_kutta import Step


class Outputs:
    """ys at `times`, filled in as the steps that hold them are taken. Times may be added while they are.

    length: how many there will be in the end, as many as times if left out.
    on_graph: outputs are kept apart and stacked at the end, because writing each one into a buffer
    would cost a backward pass quadratic in their number. Otherwise they are written into their place.
    """

    def __init__(self, times: Sequence[float], y0: Tensor, *, on_graph: bool, length: int | None = None):
        self.step: list[int] = [-1]
        self.sigma: list[float] = [0.0]
        self._times = times
        self._length = len(times) if length is None else length
        self._pieces: list[Tensor] | None = [y0] if on_graph else None
        self._buffer = None if on_graph else y0.new_empty((self._length, *y0.shape))
        if self._buffer is not None:
            self._buffer[0] = y0

    def collect(self, number: int, plan: StepPlan, step: Step, timeline: Timeline) -> None:
        """Takes from an accepted step the outputs that lie in it: y+ where pinned, dense output elsewhere."""
        while (j := len(self.step)) < len(self._times):
            if (self._times[j] - plan.t_end) * plan.h > 0.0:
                return
            if plan.pinned_to == j:
                sigma, y = 1.0, step.end()
            else:
                sigma = (self._times[j] - plan.t) / plan.h
                y = step.output(timeline.sigma(j, step, self._times[j]))
            self._put(j, y)
            self.step.append(number)
            self.sigma.append(sigma)

    def ys(self) -> Tensor:
        """All outputs, shape (length, *y0.shape); NaN where the steps did not reach."""
        reached = len(self.step)
        if self._buffer is not None:
            self._buffer[reached:] = math.nan
            return self._buffer
        pieces = self._pieces or []
        return torch.stack([*pieces, *(torch.full_like(pieces[0], math.nan) for _ in range(reached, self._length))])

    def _put(self, j: int, y: Tensor) -> None:
        if self._pieces is not None:
            self._pieces.append(y)
        elif self._buffer is not None:
            self._buffer[j] = y
