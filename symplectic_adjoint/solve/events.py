"""The search for the time at which an event function changes sign."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from symplectic_adjoint.errors import EventNotFound
from symplectic_adjoint.field.finite import first_non_finite
from symplectic_adjoint.field.times import Time, number
from symplectic_adjoint.solve.grid import FREE, StepPlan
from symplectic_adjoint.solve.step_sequences import StepSequence
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


class EventFunction:
    """The caller's event_fn(t, y), for the packed state, as one number that is positive until the first event.

    Each component is multiplied by its initial sign. A component that is zero at the start takes its first
    nonzero sign.
    """

    def __init__(self, event_fn: Callable[[Tensor, Tensor], Tensor], time: Callable[[Time], Tensor]):
        self._event_fn, self._time = event_fn, time
        self._signs: Tensor | None = None

    def components(self, t: Time, y: Tensor) -> Tensor:
        """Return all components, flattened, on the graph of t and y.

        Raises TypeError or ValueError if event_fn does not return real numbers.
        """
        values = self._event_fn(self._time(t), y)
        if not isinstance(values, Tensor):
            raise TypeError(f"event_fn must return a tensor, got {type(values).__name__}")
        if values.numel() == 0 or not values.is_floating_point():
            raise ValueError(
                f"event_fn must return real numbers that pass through zero, got shape {tuple(values.shape)}, "
                f"{values.dtype}"
            )
        if bool(values.isnan().any()):
            raise ValueError(f"event_fn returned nan at t = {number(t):.9g}")
        return values.reshape(-1)

    @torch.no_grad()
    def fix_signs(self, t: Time, y: Tensor) -> None:
        """Set the initial sign of the components that do not have one yet."""
        if self._signs is None:
            self._signs = self.components(t, y).sign()
        elif not bool(self._signs.all()):
            self._signs = torch.where(self._signs == 0, self.components(t, y).sign(), self._signs)

    def value(self, t: Time, y: Tensor) -> float:
        """Return the component nearest to its event, or infinity if no component has a sign yet."""
        with torch.no_grad():
            return self._signed(t, y).amin().item()

    def crossing(self, t: Time, y: Tensor) -> Tensor:
        """Return the component that crosses zero, on the graph."""
        values = self._signed(t, y)
        return values[int(values.detach().argmin())]

    def _signed(self, t: Time, y: Tensor) -> Tensor:
        assert self._signs is not None
        values = self.components(t, y)
        return torch.where(self._signs == 0, math.inf, values * self._signs)


@dataclass(frozen=True)
class Crossing:
    """An event: its time, dy/dt of the dense output at that time, and the function that is zero there."""

    t: float
    slope: Tensor
    event: EventFunction


class EventSteps:
    """The steps of another sequence, up to the one in which the event function changes sign.

    The event is a zero of the dense output of that step. With `land`, for methods whose dense output is less accurate
    than their steps, the step is repeated with other sizes until it ends on the zero. max_steps: the number of steps to
    try. on_found: called with the time of the event.
    """

    def __init__(
        self,
        sequence: StepSequence,
        event: EventFunction,
        max_steps: int,
        on_found: Callable[[float], None],
        *,
        land: bool,
    ):
        self.rejected = 0
        self.crossing: Crossing | None = None
        self._sequence, self._event, self._land = sequence, event, land
        self._max_steps, self._on_found = max_steps, on_found
        self._value, self._t = math.inf, 0.0
        self._has_signs = False
        self._tried = 0
        self._bracket: Bracket | None = None
        self._crossing_plan: StepPlan | None = None

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        self._event.components(t0, y0)  # raise its errors before the first step
        self._t = number(t0)
        return self._sequence.start(f, t0, y0)

    def propose(self) -> StepPlan | None:
        if self.crossing is not None:
            return None
        if self._bracket is not None and self._crossing_plan is not None:
            h, t = self._bracket.guess(), self._crossing_plan.t
            return StepPlan(t, h, t + h, FREE, self._crossing_plan.open_start)
        if self._tried >= self._max_steps:
            raise EventNotFound(
                f"event_fn did not change sign up to t = {self._t:.9g}, in {self._tried} steps: is there an event in "
                "this direction of time? max_num_steps in options sets how many steps are tried"
            )
        plan = self._sequence.propose()
        assert plan is not None  # the steps themselves never end
        if not math.isfinite(plan.t_end):
            raise EventNotFound(
                "event_fn did not change sign at any time: is there an event in this direction of time?"
            )
        self._tried += 1
        return plan

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        if self._bracket is not None:
            return self._accepts_landing(plan, step, self._bracket)
        accepted = self._sequence.accepts(plan, step)
        self.rejected = self._sequence.rejected
        if not accepted:
            return False
        if first_non_finite(step.end()) is not None:
            raise step.non_finite_error(self._tried - 1)
        if not self._has_signs:
            self._fix_signs_at_start(step)
        value = self._event.value(plan.t_end, step.end())
        if value > 0.0:
            self._event.fix_signs(plan.t_end, step.end())
            self._value = self._event.value(plan.t_end, step.end())
            self._t = plan.t_end
            return True
        tolerance = 4.0 * torch.finfo(step.y.dtype).eps
        if self._land:
            self._crossing_plan = plan
            self._bracket = Bracket(0.0, plan.h, self._value, value, tolerance * abs(plan.h))
            return self._accepts_landing(plan, step, self._bracket)
        self._locate(plan, step, Bracket(0.0, 1.0, self._value, value, tolerance))
        return True

    def worst_component(self, step: Step) -> int | None:
        return self._sequence.worst_component(step)

    @torch.no_grad()
    def _fix_signs_at_start(self, step: Step) -> None:
        """Set the initial signs just after the start, where the state has moved by about its own rounding error.

        A solve that continues from an event starts on a zero, and rounding may put it on either side of it.
        """
        y, k, h = step.y.detach(), step.ks[0].detach(), number(step.h)
        ratio = torch.stack([y.abs().amax(), k.abs().amax()]).tolist() if y.numel() else [0.0, 0.0]
        scale = max(abs(self._t), abs(h), ratio[0] / ratio[1] if ratio[1] > 0.0 else 0.0)
        delay = math.copysign(min(64.0 * torch.finfo(y.dtype).eps * scale, abs(h)), h)
        t, y = self._t + delay, torch.add(y, k, alpha=delay)
        self._event.fix_signs(t, y)
        self._value = self._event.value(t, y)
        self._has_signs = True

    def _locate(self, plan: StepPlan, step: Step, bracket: "Bracket") -> None:
        step.evaluate(step.tableau.interpolant.rows)  # in the caller's grad mode, not that of the search
        with torch.no_grad():
            while not bracket.converged:
                sigma = bracket.guess()
                bracket.update(sigma, self._event.value(plan.t + sigma * plan.h, step.output(sigma)))
            t = plan.t + bracket.best * plan.h
            self._finish(t, step.slope((t - plan.t) / plan.h))

    def _accepts_landing(self, plan: StepPlan, step: Step, bracket: "Bracket") -> bool:
        bracket.update(plan.h, self._event.value(plan.t_end, step.end()))
        if not bracket.converged or plan.h != bracket.best:
            self.rejected += 1
            return False
        step.evaluate(step.tableau.interpolant.rows)
        with torch.no_grad():
            self._finish(plan.t_end, step.slope(1.0))
        return True

    def _finish(self, t: float, slope: Tensor) -> None:
        self.crossing = Crossing(t, slope, self._event)
        self._on_found(t)


class Bracket:
    """A bracketed zero, narrowed by false position with the Illinois rule (Dowell and Jarratt, BIT 11, 1971).

    value_low is positive and value_high is not. The search has converged once guesses move by at most the tolerance.
    """

    def __init__(self, low: float, high: float, value_low: float, value_high: float, tolerance: float):
        self.converged = value_high == 0.0
        self.best = high
        self._ends = [low, high]
        self._values = [value_low, value_high]
        self._tolerance = tolerance
        self._last_side = -1
        self._updates = 0

    def guess(self) -> float:
        """Return where to evaluate the event function next."""
        if self.converged:
            return self.best
        (low, high), (a, b) = self._ends, self._values
        secant = high - b * (high - low) / (b - a) if math.isfinite(a) else low
        inside = min(low, high) < secant < max(low, high)
        return secant if inside and self._updates % 8 != 7 else 0.5 * (low + high)  # bisection bounds the worst case

    def update(self, x: float, value: float) -> None:
        """Narrow the bracket by the value of the event function at the guess x."""
        if self.converged:
            return
        self._updates += 1
        side = 0 if value > 0.0 else 1
        moved, self.best = abs(x - self.best), x
        self._ends[side], self._values[side] = x, value
        if side == self._last_side:
            self._values[1 - side] *= 0.5
        self._last_side = side
        width = abs(self._ends[1] - self._ends[0])
        small = width <= self._tolerance or (moved <= self._tolerance and self._updates > 1)
        self.converged = value == 0.0 or small or self._updates > 100
