"""The search for the time at which an event function changes sign."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from symplectic_adjoint.errors import EventNotFound
from symplectic_adjoint.field.finite import all_finite
from symplectic_adjoint.field.times import Time, number
from symplectic_adjoint.solve.bracket import Bracket
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

    @property
    def eps(self) -> float:
        """The spacing of the numbers that event_fn gets: for a state in half precision, that of its own dtype."""
        return torch.finfo(self._time(0.0).dtype).eps

    def components(self, t: Time, y: Tensor) -> Tensor:
        """Return all components, flattened, on the graph of t and y.

        Raises TypeError or ValueError if event_fn does not return real numbers.
        """
        values = self._event_fn(self._time(t), y)
        if not isinstance(values, Tensor):
            raise TypeError(f"event_fn must return a tensor, got {type(values).__name__}")
        if values.numel() == 0 or not values.is_floating_point():
            raise ValueError(
                f"event_fn must return real numbers that change sign, got shape {tuple(values.shape)}, {values.dtype}: "
                "return y - height rather than y > height"
            )
        if bool(values.detach().isnan().any()):
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
            return self.signed(t, y).amin().item()

    def crossing(self, t: Time, y: Tensor) -> Tensor:
        """Return the component that crosses zero, on the graph."""
        values = self.signed(t, y)
        return values[int(values.detach().argmin())]

    def index(self, t: Time, y: Tensor) -> int:
        """Return the index of the component that crosses zero."""
        return int(self.signed(t, y).detach().argmin())

    def signed(self, t: Time, y: Tensor) -> Tensor:
        """Return all components, each positive until its event, or infinity if it has no sign yet; on the graph."""
        assert self._signs is not None
        values = self.components(t, y)
        return torch.where(self._signs == 0, math.inf, values * self._signs)


@dataclass(frozen=True)
class Crossing:
    """An event: the bracket of its time, and the function that changes sign there.

    slope: dy/dt of the dense output at the time of the event. h: the size of the step.
    """

    bracket: Bracket
    slope: Tensor
    event: EventFunction
    h: float

    @property
    def t(self) -> float:
        """The earliest time found at which the function has changed sign."""
        return self.bracket.high


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
        self._landing: StepPlan | None = None
        """The shortest step tried that ends after the event."""
        self._found = False

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        self._event.components(t0, y0)  # raise its errors before the first step
        self._t = number(t0)
        return self._sequence.start(f, t0, y0)

    def propose(self) -> StepPlan | None:
        if self.crossing is not None:
            return None
        if self._bracket is not None and (landing := self._landing) is not None:
            low, high = sorted((self._bracket.low, self._bracket.high))
            h = self._bracket.guess() - landing.t
            if not self._bracket.converged and low < landing.t + h < high:
                return StepPlan(landing.t, h, landing.t + h, FREE, landing.open_start)
            self._found = True
            return landing
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
        if not all_finite(step.end()):
            raise step.non_finite_error(self._tried - 1)
        if not self._has_signs:
            self._fix_signs_at_start(step)
        value = self._event.value(plan.t_end, step.end())
        if value > 0.0:
            self._event.fix_signs(plan.t_end, step.end())
            self._value = self._event.value(plan.t_end, step.end())
            self._t = plan.t_end
            return True
        grain = math.ulp(max(abs(plan.t), abs(plan.h))) if self._land else 0.0  # the rounding of t + h
        eps = torch.finfo(step.y.dtype).eps
        bracket = Bracket(plan.t, plan.t_end, self._value, value, eps, grain)
        if self._land:
            self._landing, self._bracket = plan, bracket
            return self._accepts_landing(plan, step, bracket)
        self._locate(plan, step, bracket)
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

    def _locate(self, plan: StepPlan, step: Step, bracket: Bracket) -> None:
        step.evaluate(step.tableau.interpolant.rows)  # in the caller's grad mode, not that of the search
        with torch.no_grad():
            while not bracket.converged:
                t = bracket.guess()
                bracket.update(t, self._event.value(t, step.output((t - plan.t) / plan.h)))
            self._finish(bracket, step.slope((bracket.high - plan.t) / plan.h), plan.h)

    def _accepts_landing(self, plan: StepPlan, step: Step, bracket: Bracket) -> bool:
        if plan is not self._landing:  # which the bracket knows
            value = self._event.value(plan.t_end, step.end())
            bracket.update(plan.t_end, value)
            if not value > 0.0:
                self._landing = plan
        if plan is not self._landing or not (self._found or bracket.converged):
            self.rejected += 1
            return False
        step.evaluate(step.tableau.interpolant.rows)
        with torch.no_grad():
            self._finish(bracket, step.slope(1.0), plan.h)
        return True

    def _finish(self, bracket: Bracket, slope: Tensor, h: float) -> None:
        self.crossing = Crossing(bracket, slope, self._event, h)
        self._on_found(bracket.high)
