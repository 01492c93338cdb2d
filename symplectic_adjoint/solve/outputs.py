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
        self._pieces: list[Tensor] | None = [y0[None]] if on_graph else None
        self._buffer = None if on_graph else y0.new_empty((self._length, *y0.shape))
        if self._buffer is not None:
            self._buffer[0] = y0

    def collect(self, number: int, plan: StepPlan, step: Step, timeline: Timeline) -> None:
        """Add the outputs that lie in an accepted step: y+ if the step is pinned to the output, else dense output."""
        while (j := len(self.step)) < len(self._times):
            if (self._times[j] - plan.t_end) * plan.h > 0.0:
                return
            if plan.pinned_to == j:
                sigmas = [1.0]
                self._put(j, step.end())
            elif type(sigma := timeline.sigma(j, step, self._times[j])) is not float:
                sigmas = [(self._times[j] - plan.t) / plan.h]
                self._put(j, step.output(sigma))
            else:
                sigmas = [(t - plan.t) / plan.h for t in self._times[j : self._end_of_inside(j, plan)]]
                self._put_inside(j, step, sigmas)
            self.step += [number] * len(sigmas)
            self.sigma += sigmas

    def _end_of_inside(self, j: int, plan: StepPlan) -> int:
        """Return the first output from j on that does not lie in the step, or is pinned to its end."""
        n = j
        while n < len(self._times) and n != plan.pinned_to and not (self._times[n] - plan.t_end) * plan.h > 0.0:
            n += 1
        return n

    def ys(self) -> Tensor:
        """Return all outputs, of shape (length, *y0.shape); those that the steps did not reach are NaN."""
        reached = len(self.step)
        if self._buffer is not None:
            if reached < self._length:
                self._buffer[reached:] = math.nan
            return self._buffer
        pieces = self._pieces or []
        missing = [torch.full_like(pieces[0], math.nan)] * (self._length - reached)
        return torch.cat([*pieces, *missing])

    def _put(self, j: int, y: Tensor) -> None:
        if self._pieces is not None:
            self._pieces.append(y[None])
        elif self._buffer is not None:
            self._buffer[j] = y

    def _put_inside(self, j: int, step: Step, sigmas: Sequence[float]) -> None:
        if self._pieces is not None:
            self._pieces += step.outputs(sigmas)
        elif self._buffer is not None:
            step.outputs(sigmas, into=self._buffer[j : j + len(sigmas)])
