"""Looking for the time at which an event function changes sign."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from symplectic_adjoint.errors import EventNotFound
from symplectic_adjoint.field.field import Time, number
from symplectic_adjoint.field.finite import first_non_finite
from symplectic_adjoint.solve.grid import FREE, StepPlan
from symplectic_adjoint.solve.step_sequences import StepSequence
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


class EventFunction:
    """The caller's event_fn(t, y), of the packed state, as one number that is positive until an event.

    Each component counts from the side of zero that it starts on; one that starts at zero, from the side that the
    first step leaves it on.
    """

    def __init__(self, event_fn: Callable[[Tensor, Tensor], Tensor], time: Callable[[Time], Tensor]):
        self._event_fn, self._time = event_fn, time
        self._signs: Tensor | None = None

    def components(self, t: Time, y: Tensor) -> Tensor:
        """Every component, flat, on the graph of y and t."""
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
    def settle(self, t: Time, y: Tensor) -> None:
        """Fixes the side of zero of the components that have none yet."""
        if self._signs is None:
            self._signs = self.components(t, y).sign()
        elif not bool(self._signs.all()):
            self._signs = torch.where(self._signs == 0, self.components(t, y).sign(), self._signs)

    def value(self, t: Time, y: Tensor) -> float:
        """The component nearest to its event, infinite where none has a side yet."""
        with torch.no_grad():
            return self._towards(t, y).amin().item()

    def crossing(self, t: Time, y: Tensor) -> Tensor:
        """The component that crosses zero, on the graph."""
        values = self._towards(t, y)
        return values[int(values.detach().argmin())]

    def _towards(self, t: Time, y: Tensor) -> Tensor:
        assert self._signs is not None
        values = self.components(t, y)
        return torch.where(self._signs == 0, math.inf, values * self._signs)


@dataclass(frozen=True)
class Crossing:
    """Where an event was found: the time, dy/dt of the dense output there, and the function that is zero there."""

    t: float
    slope: Tensor
    event: EventFunction


class EventSteps:
    """Follows another sequence to the step in which the event function changes sign, the last one.

    The event is a zero of the dense output in that step; with `land`, where dense output is rougher than steps,
    the step is taken again, shorter or longer, until it ends on the zero. found is told its time.
    """

    def __init__(
        self,
        sequence: StepSequence,
        event: EventFunction,
        max_event_steps: int,
        found: Callable[[float], None],
        *,
        land: bool,
    ):
        self.rejected = 0
        self.crossing: Crossing | None = None
        self._sequence, self._event, self._land = sequence, event, land
        self._patience, self._found = max_event_steps, found
        self._value, self._t = math.inf, 0.0
        self._settled = False
        self._tried = 0
        self._bracket: Bracket | None = None
        self._start: StepPlan | None = None

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        self._event.components(t0, y0)  # what is wrong with it is said before the first step
        self._t = number(t0)
        return self._sequence.start(f, t0, y0)

    def propose(self) -> StepPlan | None:
        if self.crossing is not None:
            return None
        if self._bracket is not None and self._start is not None:
            h, t = self._bracket.guess(), self._start.t
            return StepPlan(t, h, t + h, FREE, self._start.open_start)
        if self._tried >= self._patience:
            raise EventNotFound(
                f"event_fn did not change sign up to t = {self._t:.9g}, in {self._tried} steps: is there an event in "
                "this direction of time? max_num_steps in options sets how long to look for it"
            )
        plan = self._sequence.propose()
        assert plan is not None  # without an event there is no end
        if not math.isfinite(plan.t_end):
            raise EventNotFound(
                "event_fn did not change sign at any time: is there an event in this direction of time?"
            )
        self._tried += 1
        return plan

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        if self._bracket is not None:
            return self._lands(plan, step, self._bracket)
        accepted = self._sequence.accepts(plan, step)
        self.rejected = self._sequence.rejected
        if not accepted:
            return False
        if first_non_finite(step.end()) is not None:
            raise step.non_finite_error(self._tried - 1)
        if not self._settled:
            self._settle(step)
        value = self._event.value(plan.t_end, step.end())
        if value > 0.0:
            self._event.settle(plan.t_end, step.end())
            self._value = self._event.value(plan.t_end, step.end())
            self._t = plan.t_end
            return True
        tolerance = 4.0 * torch.finfo(step.y.dtype).eps
        if self._land:
            self._start = plan
            self._bracket = Bracket(0.0, plan.h, self._value, value, tolerance * abs(plan.h))
            return self._lands(plan, step, self._bracket)
        self._find(plan, step, Bracket(0.0, 1.0, self._value, value, tolerance))
        return True

    def worst_component(self, step: Step) -> int | None:
        return self._sequence.worst_component(step)

    @torch.no_grad()
    def _settle(self, step: Step) -> None:
        """The sides of zero at the start, a moment later: in the time in which the state moves by its own rounding.

        A solve that goes on from an event starts on a zero, which rounding puts on either side.
        """
        y, k, h = step.y.detach(), step.ks[0].detach(), number(step.h)
        ratio = torch.stack([y.abs().amax(), k.abs().amax()]).tolist() if y.numel() else [0.0, 0.0]
        scale = max(abs(self._t), abs(h), ratio[0] / ratio[1] if ratio[1] > 0.0 else 0.0)
        moment = math.copysign(min(64.0 * torch.finfo(y.dtype).eps * scale, abs(h)), h)
        t, y = self._t + moment, torch.add(y, k, alpha=moment)
        self._event.settle(t, y)
        self._value = self._event.value(t, y)
        self._settled = True

    def _find(self, plan: StepPlan, step: Step, bracket: "Bracket") -> None:
        step.evaluate(step.tableau.interpolant.rows)  # with the caller's grad mode, not the search's
        with torch.no_grad():
            while not bracket.closed:
                sigma = bracket.guess()
                bracket.tell(sigma, self._event.value(plan.t + sigma * plan.h, step.output(sigma)))
            t = plan.t + bracket.best * plan.h
            self._end(t, step.slope((t - plan.t) / plan.h))

    def _lands(self, plan: StepPlan, step: Step, bracket: "Bracket") -> bool:
        bracket.tell(plan.h, self._event.value(plan.t_end, step.end()))
        if not bracket.closed or plan.h != bracket.best:
            self.rejected += 1
            return False
        step.evaluate(step.tableau.interpolant.rows)
        with torch.no_grad():
            self._end(plan.t_end, step.slope(1.0))
        return True

    def _end(self, t: float, slope: Tensor) -> None:
        self.crossing = Crossing(t, slope, self._event)
        self._found(t)


class Bracket:
    """A zero between two numbers, by false position with the Illinois rule (Dowell and Jarratt, BIT 11, 1971).

    value_low is positive, value_high is not. Closed once the guesses move by no more than the tolerance.
    """

    def __init__(self, low: float, high: float, value_low: float, value_high: float, tolerance: float):
        self.closed = value_high == 0.0
        self.best = high
        self._ends = [low, high]
        self._values = [value_low, value_high]
        self._tolerance = tolerance
        self._last_side = -1
        self._told = 0

    def guess(self) -> float:
        if self.closed:
            return self.best
        (low, high), (a, b) = self._ends, self._values
        secant = high - b * (high - low) / (b - a) if math.isfinite(a) else low
        inside = min(low, high) < secant < max(low, high)
        return secant if inside and self._told % 8 != 7 else 0.5 * (low + high)  # now and then halve, whatever g is

    def tell(self, x: float, value: float) -> None:
        """event value at x, a guess."""
        if self.closed:
            return
        self._told += 1
        side = 0 if value > 0.0 else 1
        moved, self.best = abs(x - self.best), x
        self._ends[side], self._values[side] = x, value
        if side == self._last_side:
            self._values[1 - side] *= 0.5
        self._last_side = side
        width = abs(self._ends[1] - self._ends[0])
        self.closed = value == 0.0 or width <= self._tolerance or (moved <= self._tolerance and self._told > 1)
        self.closed = self.closed or self._told > 100
