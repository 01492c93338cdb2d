"""A validated initial value problem, ready to be solved with any gradient strategy."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.errors import NonFiniteError, SolverError, TooManySteps
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.field import Field, Func
from symplectic_adjoint.field.forward_state import Surroundings
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.field.parameters import Parameters
from symplectic_adjoint.field.transforms import batched
from symplectic_adjoint.memory.byte_size import in_words
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.callbacks import Callbacks
from symplectic_adjoint.solve.events import Crossing, EventFunction, EventSteps
from symplectic_adjoint.solve.grid import CONSTANT, FREE, Grid, StepPlan
from symplectic_adjoint.solve.options import Options
from symplectic_adjoint.solve.outputs import Outputs
from symplectic_adjoint.solve.step_control import Norm
from symplectic_adjoint.solve.step_sequences import (
    AdaptiveSteps,
    CheckedSteps,
    FixedSteps,
    StepSequence,
    even_count,
    even_steps,
    pins_on,
    steps_between,
    unbounded_steps,
)
from symplectic_adjoint.solve.time_loop import KeepNothing, Recorder, integrate
from symplectic_adjoint.solve.timeline import DifferentiableTimeline, Timeline
from symplectic_adjoint.steps.runge_kutta import MakeStep, RightHandSide, Step


@dataclass(frozen=True)
class Choice:
    """What gradient="auto" held from the way there for the way back, the most that its budget allows.

    Of the steps so many starts (with y0), of the other stages so many, and the graphs of so many f calls: the rest is
    computed again. predicted_peak_bytes: what is live at once at most, as predicted.
    """

    budget_bytes: int
    predicted_peak_bytes: int
    steps: int
    f_calls: int
    starts: int
    stages: int
    graphs: int

    def __str__(self) -> str:
        everything = self.graphs >= self.f_calls
        kept = "every graph" if everything else f"the graphs of the last {self.graphs} of {self.f_calls} f calls"
        inner = self.f_calls - self.steps
        return (
            f"held {kept}, {self.stages} of {inner} stages besides the starts, and the starts of {self.starts} of "
            f"{self.steps} steps: {'all there is' if everything else 'what saves most f calls'} within "
            f"{in_words(self.budget_bytes)} (predicted peak {in_words(self.predicted_peak_bytes)})"
        )


@dataclass
class Stats:
    """What a solve cost. Backward counts grow each time that a backward pass runs.

    VJPs are the f calls whose transpose is taken, each of which is also an f call where it is not
    the forward pass's own graph that is transposed (`backprop`).
    """

    method: str
    gradient: str
    f_calls_forward: int = 0
    f_calls_backward: int = 0
    vjps_forward: int = 0
    vjps_backward: int = 0
    accepted: int = 0
    rejected: int = 0
    accepted_backward: int = 0
    """Steps of the second solve, which `continuous` alone has."""
    choice: Choice | None = None
    """What gradient="auto" made of its budget."""


@dataclass
class Trajectory:
    """The forward pass as it went: its steps, and where the outputs came from.

    Outputs that were not reached have no entry. crossing is the event that ended the solve.
    """

    plans: Sequence[StepPlan]
    output_step: Sequence[int]
    output_sigma: Sequence[float]
    stats: Stats
    field: Field
    crossing: Crossing | None = None

    @property
    def make_grid(self) -> Callable[[], Grid]:
        """What makes the record of the steps, without holding func or anything of its own."""
        return partial(Grid.from_plans, self.plans, self.output_step, self.output_sigma)

    def dense_outputs(self) -> dict[int, list[int]]:
        """Outputs inside a step or on its free end, by step; an output on its own pin is not one of them."""
        inside: dict[int, list[int]] = {}
        for j, n in enumerate(self.output_step):
            if n >= 0 and self.plans[n].pinned_to != j:
                inside.setdefault(n, []).append(j)
        return inside

    def f_calls_on_graph(self, tableau: ButcherTableau) -> int:
        """f calls that autograd transposes when these steps were taken on the graph."""
        s, rows, last = tableau.stages, tableau.interpolant.rows, len(self.plans) - 1
        calls = len(self.plans) * s
        for n in self.dense_outputs():  # f at a step's end is the next step's k_1, where there is one
            calls += max(0, rows - s - 1) + (1 if n == last and rows > s else 0)
        return calls


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y; theta) over `times`, with everything decided but the gradient.

    func is a function of the packed state, `caller` the caller's own. event, of the packed state too, ends the solve:
    times is then the start and infinity. accumulate: how a sweep adds up. compile: whether func is. make_step: the kind
    of step that the solve takes.
    recorded: the steps to take, where they are known; surroundings: those of the solve that took them first.
    """

    func: Func
    parameters: Parameters
    tableau: ButcherTableau
    times: tuple[float, ...]
    options: Options
    gradient_name: str
    layout: Layout
    caller: Any
    event: Callable[[Tensor, Tensor], Tensor] | None = None
    accumulate: str | None = None
    compile: bool = False
    make_step: MakeStep = Step
    recorded: tuple[StepPlan, ...] | None = None
    surroundings: Surroundings | None = None

    def field(self, like: Tensor) -> Field:
        f = Field(
            self.func,
            self.parameters.trainable,
            like,
            frozen=self.parameters.frozen,
            time_dtype=self.layout.time_dtype,
            place=self.layout.place,
            surroundings=self.surroundings or Surroundings(self.parameters.reached, like.device),
        )
        if self.compile:
            f.compiled = CompiledSteps(self.func, self.tableau, like, f.time_dtype)
        return f

    @cached_property
    def total_steps(self) -> int | None:
        """How many steps the solve will take; None where it is not known."""
        if self.recorded is not None:
            return len(self.recorded)
        if self.options.control is not None or self.event is not None:
            return None
        return sum(1 for _ in self._fixed_plans(self.times)) if len(self.times) > 1 else 0

    def callbacks(self, suffix: str = "") -> Callbacks:
        return Callbacks(self.caller, self.layout.unpack, suffix)

    def step_sequence(self, times: Sequence[float], norm: Norm | None = None) -> StepSequence:
        """A sequence over `times`, which may be a part of the problem's own, in either direction.

        norm replaces the one that measures the error, for a state that is not the problem's own.
        """
        options = self.options
        if self.recorded is not None:
            return FixedSteps(self.recorded)
        if options.control is None:
            return FixedSteps(self._fixed_plans(times) if len(times) > 1 else ())
        control = options.control if norm is None else replace(options.control, norm=norm)
        return AdaptiveSteps(self.tableau, times[0], self._pins(times), control, options.jumps)

    def solve(
        self, y0: Tensor, recorder: Recorder, *, watch: bool = False, on_graph: bool = False, t: Tensor | None = None
    ) -> tuple[Tensor, Trajectory]:
        """ys of one forward pass, and how it went.

        watch: for gradients that func would lose. on_graph: for autograd to go through it, and through the times too
        where t is given.
        """
        f = self.field(y0)
        if watch or self.compile:
            f.watch()
        times = list(self.times)
        sequence, search = self.step_sequence(times), None
        outputs = Outputs(times, y0, on_graph=on_graph, length=len(times))
        if self.event is not None:
            del times[1:]  # the second one is found on the way
            event = EventFunction(self.event, f.time)
            sequence = search = EventSteps(
                sequence, event, self.options.max_event_steps, times.append, land=self.options.land
            )
        if self.recorded is None:
            sequence = self.callbacks().wrap(sequence)
        timeline = Timeline(self.times[0]) if t is None else DifferentiableTimeline(t)
        try:
            with f.surroundings.alone if self.surroundings is None else f.surroundings.again():
                rhs = recorder.wrap(f)
                plans, y_end = integrate(rhs, self.tableau, sequence, y0, outputs, recorder, timeline, self.make_step)
                if self.options.control is None and not batched(y_end) and not bool(torch.isfinite(y_end).all()):
                    self._name_non_finite(f, y0, plans)
        except SolverError as error:
            error.surroundings = f.surroundings
            raise
        finally:
            if self.surroundings is None:
                f.surroundings.finish()
        stats = Stats(self.tableau.name, self.gradient_name, f.f_calls, accepted=len(plans), rejected=sequence.rejected)
        crossing = None if search is None else search.crossing
        return outputs.ys(), Trajectory(plans, outputs.step, outputs.sigma, stats, f, crossing)

    def ended(self, trajectory: Trajectory) -> "Problem":
        """The problem up to the event that was found, which is then a time like another."""
        if trajectory.crossing is None:
            return self
        return replace(self, times=(self.times[0], trajectory.crossing.t), event=None)

    def as_far_as(self, failure: SolverError) -> "Problem":
        """The same problem over the steps that were accepted before the failure."""
        return replace(self, recorded=tuple(failure.plans), event=None, surroundings=failure.surroundings)

    def replay(self, f: Field, plans: Sequence[StepPlan], y0: Tensor, t: Tensor | None) -> Tensor:
        """ys once more over recorded steps, on the graph."""
        outputs = Outputs(self.times, y0, on_graph=True)
        timeline = Timeline(self.times[0]) if t is None else DifferentiableTimeline(t)
        integrate(f, self.tableau, FixedSteps(plans), y0, outputs, KeepNothing(), timeline, self.make_step)
        return outputs.ys()

    def step(
        self, f: RightHandSide, plan: StepPlan, y: Tensor, ks: Sequence[Tensor] = (), end: Tensor | None = None
    ) -> Step:
        """A recorded step of the Runge-Kutta method itself, to be evaluated again as far as needed."""
        return Step(f, self.tableau, plan.t, plan.h, plan.t_end, y, ks, end, (plan.open_start, plan.open_end))

    def _pins(self, times: Sequence[float]) -> list[tuple[float, int]]:
        """Where steps have to end, in order, and the entry of times that each is.

        An output at a jump is no pin of its own: its time may move, the jump's may not.
        """
        if len(times) == 1:
            return []
        last = len(times) - 1
        low, high = sorted((times[0], times[last]))
        pins = {stop: CONSTANT for stop in self.options.stops if low < stop < high}
        for j in range(1, last):
            if times[j] not in self.options.jumps and (self.options.land or times[j] in pins):
                pins[times[j]] = j
        pins[times[last]] = last if math.isfinite(times[last]) else FREE
        return sorted(pins.items(), reverse=times[last] < times[0])

    def _fixed_plans(self, times: Sequence[float]) -> Iterable[StepPlan]:
        options, pins = self.options, self._pins(times)
        if options.step_size is not None:
            plans = self._even_plans([(times[0], FREE), *pins], options.step_size)
        else:
            grid = self._grid(options.points or times, times, pins)
            self._limit(len(grid) - 1)
            index = {time: j for time, j in pins if j == CONSTANT}
            given = pins_on(grid, times)
            plans = steps_between(grid, [index.get(end, j) for end, j in zip(grid[1:], given, strict=True)])
        if not options.jumps and not options.perturb:
            return plans
        return (self._opened(plan) for plan in plans)

    def _even_plans(self, pins: Sequence[tuple[float, int]], step_size: float) -> Iterator[StepPlan]:
        """Steps of one size from pin to pin, the first of which is the start."""
        finite = [(a, b, j) for (a, _), (b, j) in pairwise(pins) if math.isfinite(b)]
        self._limit(sum(even_count(a, b, step_size) for a, b, _ in finite))
        plans = chain.from_iterable(even_steps(a, b, step_size, pinned_to=j) for a, b, j in finite)
        end = pins[-1][0]
        if math.isfinite(end):
            return plans
        return chain(plans, unbounded_steps(pins[-2][0], math.copysign(step_size, end)))

    def _opened(self, plan: StepPlan) -> StepPlan:
        perturb, jumps = self.options.perturb, self.options.jumps
        return replace(plan, open_start=perturb or plan.t in jumps, open_end=perturb or plan.t_end in jumps)

    def _limit(self, steps: int) -> None:
        if steps > self.options.max_num_steps:
            raise TooManySteps(f"the grid has {steps} steps, more than max_num_steps={self.options.max_num_steps}")

    def _grid(self, points: Sequence[float], times: Sequence[float], pins: Sequence[tuple[float, int]]) -> list[float]:
        """Grid points within times, ends included, in the order of times, and every pin."""
        low, high = sorted((times[0], times[-1]))
        inside = {p for p in points if low < p < high} | {times[0], times[-1], *(time for time, _ in pins)}
        return sorted(inside, reverse=math.copysign(1.0, times[-1] - times[0]) < 0.0)

    def _name_non_finite(self, f: Field, y0: Tensor, plans: Sequence[StepPlan]) -> None:
        """Fixed grids are not watched while they run; a solve that went wrong is run again to say where."""
        with torch.no_grad():
            y0, f = y0.detach(), f.again()
            outputs = Outputs(self.times[:1], y0, on_graph=False)
            sequence, timeline = CheckedSteps(plans), Timeline(self.times[0])
            integrate(f, self.tableau, sequence, y0, outputs, KeepNothing(), timeline, self.make_step)
        raise NonFiniteError(
            f"the state at t = {self.times[-1]:.9g} is not finite, and was when the solve was run again: func is not "
            "deterministic"
        )
