"""Sequences of steps: on a fixed grid, by step size control, or as recorded by an earlier solve."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count
from typing import Protocol

from torch import Tensor

from symplectic_adjoint.errors import StageNotSolved, StepSizeUnderflow, TooManySteps
from symplectic_adjoint.field.captured import CapturedSteps
from symplectic_adjoint.field.finite import all_finite
from symplectic_adjoint.field.host_reads import is_capturing, refuse_capture
from symplectic_adjoint.field.times import Time
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.barrier import Barrier, final_error
from symplectic_adjoint.solve.grid import CONSTANT, FREE, StepPlan
from symplectic_adjoint.solve.step_control import StepControl, initial_step
from symplectic_adjoint.solve.stiffness import StiffnessTest
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step

STRETCH = 1.01
"""A step is lengthened by up to this factor to reach a pin just beyond its end."""

COUNTED_ULPS = 1024.0
"""Steps of fewer ulps of t are a whole number of them: rounding t + h would change such a step by too much."""


ADAPTIVE = "adaptive steps, whose sizes the host chooses: give step_size in options"
"""What a user cannot capture, and what to do instead."""


class StepSequence(Protocol):
    """The steps of a solve: proposed one at a time, then accepted or rejected."""

    @property
    def rejected(self) -> int:
        """The number of steps rejected so far."""
        ...

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        """Prepare the first step; return its k_1 if it was computed. Called once."""
        ...

    def propose(self) -> StepPlan | None:
        """Return the next step to try, or None at the end."""
        ...

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        """Return whether the step is accepted; if not, the next proposal is a retry."""
        ...

    def worst_component(self, step: Step) -> int | None:
        """Return the flat index of the component with the largest error, or None if errors are not estimated."""
        ...


class FixedSteps:
    """Steps that are known in advance. All are accepted without synchronising with the device."""

    def __init__(self, plans: Iterable[StepPlan]):
        self.rejected = 0
        self._plans: Iterator[StepPlan] = iter(plans)

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        del f, t0, y0
        return None

    def propose(self) -> StepPlan | None:
        return next(self._plans, None)

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        del plan, step
        return True

    def worst_component(self, step: Step) -> int | None:
        del step


class CheckedSteps(FixedSteps):
    """Steps that are known in advance, each of which is checked: the first non-finite one raises NonFiniteError."""

    def __init__(self, plans: Iterable[StepPlan]):
        super().__init__(plans)
        self._accepted = 0

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        if not all_finite(step.end()):
            raise step.non_finite_error(self._accepted)
        self._accepted += 1
        return True


class AdaptiveSteps:
    """Steps whose sizes are set by step size control and which end on every pin; the last pin is the end of the solve.

    A pin is (time, pinned_to); the last one may be at infinity. A step cut short by a pin does not shorten the steps
    after it. jumps: times where func jumps. Raises TooManySteps, StepSizeUnderflow or NonFiniteError if the end cannot
    be reached.
    """

    def __init__(
        self,
        tableau: ButcherTableau,
        t0: float,
        pins: Sequence[tuple[float, int]],
        control: StepControl,
        jumps: Collection[float] = (),
    ):
        self.rejected = 0
        self._order = tableau.controller_order
        self._control = control
        self._t = t0
        self._pins = pins
        self._jumps = jumps
        self._next_pin = 0
        self._direction = math.copysign(1.0, pins[-1][0] - t0) if pins else 1.0
        self._size = control.first_step or 0.0
        self._accepted = 0
        self._previous_ratio = 1e-4
        self._after_rejection = False
        self._barrier: Barrier | None = None
        self._unsolved: StageNotSolved | None = None
        """Why the last step tried was shortened, if its stages were not solved."""
        self.stiffness = None if tableau.implicit else StiffnessTest(tableau)

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        if is_capturing(y0.device):
            refuse_capture(ADAPTIVE)
        if self._control.first_step is not None or not self._pins:
            return None
        f0 = f(f.adjacent_time(t0, self._direction) if self._t in self._jumps else t0, y0)
        span = self._pins[-1][0] - self._t
        code = f.code if isinstance(f.code, CapturedSteps) else None
        size = abs(initial_step(f, self._t, y0, f0.detach(), span, self._order, self._control, code))
        self._size = max(size, 16.0 * _ulp(self._t, self._pins[-1][0]))
        return f0

    def propose(self) -> StepPlan | None:
        if self._next_pin == len(self._pins):
            return None
        control, t = self._control, self._t
        if self._accepted + self.rejected >= control.max_num_steps:
            raise TooManySteps(
                f"max_num_steps={control.max_num_steps} steps were tried ({self._accepted} accepted, {self.rejected} "
                f"rejected) and t is {t:.9g}, not yet {self._pins[-1][0]:.9g}: raise max_num_steps, loosen rtol and "
                "atol, or check whether the problem is stiff" + self._stiff()
            )
        self._size = min(max(self._size, control.min_step), control.max_step)
        target, index = self._pins[self._next_pin]
        jumped = t in self._jumps
        if self._reaches_pin(self._size):
            return StepPlan(t, target - t, target, index, jumped, target in self._jumps)
        h = self._direction * self._size
        end = t + h
        if self._size < COUNTED_ULPS * math.ulp(t):
            if self._after_rejection and abs(end - t) > self._size:
                end = math.nextafter(end, t)  # rounding must not make a retry as long as the step that failed
            if end == t:
                self._give_up(t, h)
            h = end - t
        return StepPlan(t, h, end, FREE, jumped)

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        control, size = self._control, abs(plan.h)
        try:
            ratio = control.error_ratio(step, self.stiffness)
        except StageNotSolved as error:
            return self._shortened(plan, error)
        self._unsolved = None
        finite = math.isfinite(ratio)
        factor = control.factor(ratio, self._previous_ratio, self._order)
        retry = size * min(factor, 0.99)  # a retry is always shorter
        if not finite:
            retry = self._retry_non_finite(plan, step, retry)
        accepted = finite and (ratio <= 1.0 or size <= control.min_step)
        if accepted:
            if self._after_rejection:
                factor = min(factor, 1.0)
            wanted, self._size = self._size, size * factor
            if plan.pinned_to != FREE:
                self._next_pin += 1
                if size < wanted:  # cut short by the pin
                    self._size = max(self._size, wanted)
            self._t = plan.t_end
            self._accepted += 1
            if self.stiffness is not None:
                self.stiffness.accept(plan.t)
            self._previous_ratio = max(ratio, 1e-4)
            if self._barrier is not None:
                self._barrier.failure = None
                if self._barrier.is_passed(self._t):
                    self._barrier = None
        else:
            self.rejected += 1
            self._size = retry
        self._after_rejection = not accepted
        return accepted

    def _shortened(self, plan: StepPlan, error: StageNotSolved) -> bool:
        """Reject a step whose stages were not solved; raise the error if no shorter one may be tried."""
        if abs(plan.h) <= self._control.min_step:
            raise error
        self.rejected += 1
        self._size, self._after_rejection, self._unsolved = 0.25 * abs(plan.h), True, error
        return False

    def _reaches_pin(self, size: float) -> bool:
        """Return whether a step of this size is made to end on the next pin.

        A retry is not lengthened to reach it, since that might be the very step that was rejected.
        """
        target, _ = self._pins[self._next_pin]
        if not self._after_rejection:
            size = max(min(STRETCH * size, self._control.max_step), size + 4.0 * _ulp(self._t, target))
        return abs(target - self._t) <= size

    def _retry_non_finite(self, plan: StepPlan, step: Step, retry: float) -> float:
        """Return the size after a step that is not finite; raise NonFiniteError if no shorter step can help."""
        error = step.non_finite_error(self._accepted)
        bad_at_start = not all_finite(step.ks[0]) or not all_finite(step.y)
        if bad_at_start or abs(plan.h) <= self._control.min_step:
            raise error
        if self._barrier is None:
            self._barrier = Barrier(plan)
        self._barrier.meet(plan, error)
        if self._barrier.is_final:
            self._give_up(plan.t, plan.h)
        return self._barrier.retry(plan, retry)

    def worst_component(self, step: Step) -> int | None:
        return self._control.worst_component(step)

    def _give_up(self, t: float, h: float) -> None:
        if self._barrier is not None and self._barrier.failure is not None:
            raise final_error(self._barrier.failure, h)
        if self._unsolved is not None:
            raise StageNotSolved(
                f"{self._unsolved}; steps were shortened to {h:.3g}, which no longer advances t = {t:.9g}"
            )
        raise StepSizeUnderflow(
            f"the step size {h:.3g} no longer advances t = {t:.9g} (after {self._accepted} accepted and "
            f"{self.rejected} rejected steps): loosen rtol and atol, use a state of higher precision, give min_step "
            "in options, end the solve before a singularity, or measure time in a larger unit from a nearer origin"
            + self._stiff()
        )

    def _stiff(self) -> str:
        """Return what an error adds if the steps were found to be limited by stability."""
        found = None if self.stiffness is None else self.stiffness.found
        return "" if found is None else f". {found}"


def _ulp(a: float, b: float) -> float:
    """Return the spacing of float64 near the larger of two times, or near the first if the second is infinite."""
    return math.ulp(max(abs(a), abs(b)) if math.isfinite(b) else abs(a))


def steps_between(points: Sequence[float], pinned_to: Sequence[int]) -> list[StepPlan]:
    """Return the steps from each point to the next; step i ends at points[i + 1] and is pinned to pinned_to[i]."""
    return [StepPlan(points[i], points[i + 1] - points[i], points[i + 1], pinned_to[i]) for i in range(len(points) - 1)]


def even_count(t0: float, t_end: float, step_size: float) -> int:
    """Return the number of steps of step_size from t0 to t_end, not counting a remainder that is only rounding error.

    Raises StepSizeUnderflow if step_size is too small to advance such times in float64.
    """
    ulp = math.ulp(max(abs(t0), abs(t_end)))
    if step_size < 8.0 * ulp:
        raise StepSizeUnderflow(
            f"option 'step_size' is {step_size:g}, which no longer advances times as large as "
            f"{max(abs(t0), abs(t_end)):g} in float64: give a larger one, or measure time from a nearer origin"
        )
    steps = abs(t_end - t0) / step_size
    return max(1, math.ceil(steps * (1.0 - 1e-15) - max(1e-9, 4.0 * ulp / step_size)))


def even_steps(t0: float, t_end: float, step_size: float, pinned_to: int) -> Iterator[StepPlan]:
    """Yield steps of step_size from t0; the last one is shortened to end at t_end, and pinned there.

    Step n starts at t0 + n h, not at a running sum.
    """
    h = math.copysign(step_size, t_end - t0)
    steps = even_count(t0, t_end, step_size)
    for n in range(steps - 1):
        yield StepPlan(t0 + n * h, h, t0 + (n + 1) * h, FREE)
    last = t0 + (steps - 1) * h
    yield StepPlan(last, t_end - last, t_end, pinned_to)


def unbounded_steps(t0: float, h: float) -> Iterator[StepPlan]:
    """Yield steps of h from t0, without end; raise StepSizeUnderflow once they no longer advance."""
    for n in count():
        start, end = t0 + n * h, t0 + (n + 1) * h
        if end == start:
            raise StepSizeUnderflow(f"steps of {h:g} no longer advance t = {start:g}")
        yield StepPlan(start, h, end, FREE)


def pins_on(points: Sequence[float], times: Sequence[float]) -> list[int]:
    """Return, for each point after the first, the index of the time that it equals, or CONSTANT."""
    index = {time: j for j, time in enumerate(times)}
    return [index.get(point, CONSTANT) for point in points[1:]]
