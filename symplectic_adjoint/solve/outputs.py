"""The outputs of a solve, and the step that each of them comes from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.timeline import Timeline
from symplectic_adjoint.steps.runge_kutta import Step


class Outputs:
    """ys at `times`, filled in step by step. Times may be appended during the solve.

    length: the final number of outputs; that of times if left out.
    on_graph: whether outputs are on the autograd graph. If so, they are kept separately and stacked at the end, because
    writing them into a buffer would make the backward pass quadratic in their number.
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
        """Add the outputs that lie in an accepted step: y+ if the step is pinned to the output, else dense output."""
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
        """Return all outputs, of shape (length, *y0.shape); those that the steps did not reach are NaN."""
        reached = len(self.step)
        if self._buffer is not None:
            if reached < self._length:
                self._buffer[reached:] = math.nan
            return self._buffer
        pieces = self._pieces or []
        return torch.stack([*pieces, *(torch.full_like(pieces[0], math.nan) for _ in range(reached, self._length))])

    def _put(self, j: int, y: Tensor) -> None:
        if self._pieces is not None:
            self._pieces.append(y)
        elif self._buffer is not None:
            self._buffer[j] = y
