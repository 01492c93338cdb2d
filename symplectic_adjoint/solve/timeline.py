"""The times of steps, as numbers or as functions of t on the autograd graph.

One rule holds for all time gradients. A pinned end is an entry T of t (or a constant), and h = T - start. A free end is
start + h, and h is a constant.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time, number
from symplectic_adjoint.solve.grid import CONSTANT, FREE, StepPlan
from symplectic_adjoint.steps.runge_kutta import Step


def recorded_time(value: float, time: Time) -> Time:
    """Return `time` with its value set to the recorded one if they differ only by rounding.

    func may jump between the two. A larger difference means that t itself has changed, and `time` is returned as it is.
    """
    if not isinstance(time, Tensor):
        return value
    off = value - number(time)
    return time + off if abs(off) <= 8.0 * math.ulp(value) else time


class Timeline:
    """Times as float64 numbers."""

    def __init__(self, t0: float):
        self.start: Time = t0

    def of(self, plan: StepPlan) -> tuple[Time, Time, Time]:
        """Return (t, h, t_end) of a step to try."""
        return plan.t, plan.h, plan.t_end

    def advance(self, plan: StepPlan) -> None:
        """Move to the end of an accepted step, where the next one starts."""
        self.start = plan.t_end

    def sigma(self, j: int, step: Step, time: float) -> Time:
        """Return the fraction of the step at which output j, at `time`, lies."""
        del j
        return (time - step.t) / step.h


class DifferentiableTimeline(Timeline):
    """Times as 0-dim float64 tensors on the CPU, differentiable in t.

    Outputs beyond the entries of t lie at times found during the solve, which are constants here.
    """

    def __init__(self, t: Tensor):
        self._t = t.to(dtype=torch.float64, device="cpu").unbind()
        self.start: Time = self._t[0]

    def of(self, plan: StepPlan) -> tuple[Time, Time, Time]:
        if plan.pinned_to == FREE:
            return self.start, plan.h, recorded_time(plan.t_end, self.start + plan.h)
        end = plan.t_end if plan.pinned_to == CONSTANT else self._t[plan.pinned_to]
        return self.start, end - self.start, end

    def advance(self, plan: StepPlan) -> None:
        self.start = self.of(plan)[2]

    def sigma(self, j: int, step: Step, time: float) -> Time:
        return ((self._t[j] if j < len(self._t) else time) - step.t) / step.h


class TimeCotangents:
    """dL/dt of a solve, accumulated from the last step to the first.

    The cotangents of each step's start and size (each with the other held fixed) are passed on to the entries of t by
    the rule above.
    """

    def __init__(self, t: Tensor):
        self._like = t
        self._bars: list[Tensor | float] = [0.0] * len(t)
        self._start: Tensor | float = 0.0

    def add_step(self, plan: StepPlan, t_bar: Tensor | float, h_bar: Tensor | float) -> None:
        """Add the cotangents of the start and the size of a step, from the last step to the first."""
        if plan.pinned_to == FREE:
            self._start = t_bar + self._start
            return
        if plan.pinned_to != CONSTANT:
            self._bars[plan.pinned_to] = self._bars[plan.pinned_to] + self._start + h_bar
        self._start = t_bar - h_bar

    def add_output(self, j: int, bar: Tensor | float) -> None:
        """Add the cotangent of the time of output j, if it is an entry of t."""
        if j < len(self._bars):
            self._bars[j] = self._bars[j] + bar

    def total(self) -> Tensor:
        """Return dL/dt, like t."""
        return stack_times([self._bars[0] + self._start, *self._bars[1:]], self._like)


def stack_times(bars: Sequence[Tensor | float], t: Tensor) -> Tensor:
    """Return one number for each entry of t as a tensor like t. The host waits once if they lie on a card and t not."""
    device = next((bar.device for bar in bars if isinstance(bar, Tensor)), t.device)
    columns = [
        bar.double() if isinstance(bar, Tensor) else torch.scalar_tensor(bar, dtype=torch.float64, device=device)
        for bar in bars
    ]
    return torch.stack(columns).to(device=t.device, dtype=t.dtype)
