"""A validated initial value problem, which can be solved with any gradient strategy."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.errors import NonFiniteError, SolverError
from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.coupled_solver import CoupledSolver
from symplectic_adjoint.field.few_launches import launches_count
from symplectic_adjoint.field.field import Field, Func
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.host_reads import can_read
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.field.lost_gradients import GradientNeeded, Unknown
from symplectic_adjoint.field.module_lock import ModuleLock, lock_of
from symplectic_adjoint.field.parameters import Parameters
from symplectic_adjoint.field.reach import Reach
from symplectic_adjoint.field.stage_solver import StageSolver
from symplectic_adjoint.field.times import Time
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.callbacks import Callbacks
from symplectic_adjoint.solve.capture import Capture, captured_steps, compare_within
from symplectic_adjoint.solve.events import EventFunction, EventSteps
from symplectic_adjoint.solve.fixed_grid import fixed_plans, pins_of
from symplectic_adjoint.solve.grid import CONSTANT, FREE, StepPlan
from symplectic_adjoint.solve.inputs import non_finite_start
from symplectic_adjoint.solve.options import Options
from symplectic_adjoint.solve.outputs import Outputs
from symplectic_adjoint.solve.repeated_times import RepeatedTimes
from symplectic_adjoint.solve.stats import Captured, Stats
from symplectic_adjoint.solve.step_control import Norm
from symplectic_adjoint.solve.step_sequences import AdaptiveSteps, CheckedSteps, FixedSteps, StepSequence
from symplectic_adjoint.solve.stopping import StoppableSteps
from symplectic_adjoint.solve.time_loop import KeepNothing, Recorder, integrate
from symplectic_adjoint.solve.timeline import DifferentiableTimeline, Timeline
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.kind import MakeStep, step_of
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


class StoppedEarly(Exception):
    """Raised with on_failure="return": carries the SolverError and the shorter problem that was solved before it."""

    def __init__(self, failure: SolverError, solved: "Problem"):
        super().__init__(failure)
        self.failure = failure
        self.solved = solved


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y; theta) over `times`, with everything decided except how the gradient is computed.

    times: distinct. repeated: where t has some of them more than once, None if it does not.
    func: a function of t and the packed state. caller: the function that the user passed; reach: what it reaches.
    event: a function of t and the packed state that ends the solve; times is then the start and infinity.
    accumulate: how a backward pass sums. compile: whether func is compiled. capture: whether steps are captured.
    fresh_programs: whether programs captured before are forgotten. make_step: the kind of step to take.
    recorded: the steps to take, if they are those of an earlier solve; forward_state: the ForwardState of that solve.
    returns_early: whether a SolverError is raised as StoppedEarly. calls_before: the f calls made before the solve.
    """

    func: Func
    reach: Reach
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
    capture: Capture = False
    fresh_programs: bool = False
    make_step: MakeStep = Step
    recorded: tuple[StepPlan, ...] | None = None
    forward_state: ForwardState | None = None
    returns_early: bool = False
    repeated: RepeatedTimes | None = None
    calls_before: int = 0

    @cached_property
    def lock(self) -> ModuleLock:
        """The lock of the modules that func calls, and of its parameters."""
        return lock_of(self.reach.modules, self.parameters.all_tensors)

    @property
    def may_need_gradient(self) -> bool:
        """Whether func may depend on a tensor that requires a gradient, as far as it is known before func is called."""
        buffers = (x for m in self.reach.modules for x in m._buffers.values())
        reached = chain((x.tensor for x in self.reach.tensors), buffers)
        return bool(self.parameters.trainable) or any(x is not None and x.requires_grad for x in reached)

    def field(self, like: Tensor, *, detached: bool = True) -> Field:
        """Return f for states like `like`. detached: whether its calls are off the caller's graph."""
        f = Field(
            self.func,
            self.parameters.trainable,
            like,
            frozen=self.parameters.frozen,
            time_dtype=self.layout.time_dtype,
            place=self.layout.place,
            forward_state=self.forward_state or ForwardState(self.reach, like.device, self.lock, detached=detached),
        )
        if self.tableau.implicit:
            f.stage_solver = self._stage_solver(like.dtype)
        if self.capture:
            f.captured = captured_steps(
                self.caller,
                self.tableau,
                like,
                f.forward_state,
                self.layout,
                self.options.control if self.recorded is None else None,
                time_dtype=f.time_dtype,
                dense=len(self.times) > 2 or self.event is not None or self.options.stop is not None,
                compiled=self.compile,
                auto=self.capture == "auto",
                watched=bool(self.callbacks().names) or self.event is not None or self.options.stop is not None,
                fresh=self.fresh_programs,
            )
            f.times = f.times.one_by_one()
        if self.compile:
            counters = f.captured.counters if f.captured else CallCounters(self.caller, self.reach.modules)
            f.compiled = CompiledSteps(self.func, self.tableau, like, f.time_dtype, counters)
        return f

    @cached_property
    def total_steps(self) -> int | None:
        """The number of steps that the solve will take; None if it is not known in advance."""
        if self.recorded is not None:
            return len(self.recorded)
        if len(self.times) == 1:
            return 0
        if self.options.control is not None or self.event is not None:
            return None
        return len(self._known_plans)

    @cached_property
    def _known_plans(self) -> Sequence[StepPlan]:
        return tuple(fixed_plans(self.options, self.times)) if self.recorded is None else self.recorded

    @property
    def held_outputs(self) -> int:
        """The number of outputs in memory at once: those of distinct times, and those of all times if any repeat."""
        return len(self.times) + (0 if self.repeated is None else len(self.repeated.group))

    @property
    def most_outputs_inside(self) -> int:
        """The most outputs that may lie inside one step; all but the first and the last if steps are not known."""
        if len(self.times) < 3 or self.total_steps is None:
            return max(0, len(self.times) - 2)
        sign = 1.0 if self.times[-1] >= self.times[0] else -1.0
        ends = [sign * plan.t_end for plan in self._known_plans]
        steps = [(j, bisect_left(ends, sign * t)) for j, t in enumerate(self.times)][1:]
        inside = Counter(n for j, n in steps if n < len(ends) and self._known_plans[n].pinned_to != j)
        return max(inside.values(), default=0)

    def callbacks(self, suffix: str = "") -> Callbacks:
        """Return func's callbacks, by torchdiffeq's names with this suffix."""
        return Callbacks(self.caller, self.layout.unpack, suffix)

    def step_sequence(self, times: Sequence[float], norm: Norm | None = None) -> StepSequence:
        """Return the steps over `times`, which may be a part of the problem's own, in either direction.

        norm: the norm of the error, for a state that is not the problem's own.
        """
        options = self.options
        if self.recorded is not None:
            return FixedSteps(self.recorded)
        if options.control is None:
            return FixedSteps(fixed_plans(options, times) if len(times) > 1 else ())
        control = options.control if norm is None else replace(options.control, norm=norm)
        return AdaptiveSteps(self.tableau, times[0], pins_of(options, times), control, options.jumps)

    def solve(
        self,
        y0: Tensor,
        recorder: Recorder,
        *,
        watch: bool = False,
        adopt: bool = False,
        through_state: bool = True,
        on_graph: bool = False,
        t: Tensor | None = None,
    ) -> tuple[Tensor, Trajectory]:
        """Return ys of one forward pass, and its trajectory.

        watch: whether to raise GradientNeeded if func uses a tensor that requires a gradient. adopt: whether tensors
        found so become parameters of the trajectory's field. through_state: whether a gradient of y0 or t is wanted.
        on_graph: whether the steps go on the autograd graph, and so do the times if t is given. Raises SolverError, or
        StoppedEarly with returns_early.
        """
        with self.lock:  # or the captured state might include aliases from a backward pass in another thread
            f = self.field(y0, detached=adopt)
            f.f_calls = self.calls_before
            if watch or adopt or self.compile or self.capture:
                on_unknown = Unknown.ADOPT if adopt else Unknown.REPORT if watch else Unknown.IGNORE
                f.search.start(on_unknown, through_state=through_state)
            try:
                return self._solved(f, y0, recorder, on_graph, t)
            except GradientNeeded as needed:
                needed.f_calls = f.f_calls
                raise

    def _solved(
        self, f: Field, y0: Tensor, recorder: Recorder, on_graph: bool, t: Tensor | None
    ) -> tuple[Tensor, Trajectory]:
        times, plans = list(self.times), list[StepPlan]()
        sequence, search = self.step_sequence(times), None
        stiffness = sequence.stiffness if isinstance(sequence, AdaptiveSteps) else None
        outputs = Outputs(times, y0, on_graph=on_graph, length=len(times))
        if self.event is not None:
            del times[1:]  # the second time is found by the solve
            event = EventFunction(self.event, f.time)
            sequence = search = EventSteps(
                sequence, event, self.options.max_event_steps, times.append, land=self.options.land
            )
        stoppable = None
        if self.recorded is None:
            sequence = self.callbacks().wrap(sequence)
            if self.options.stop is not None:
                sequence = stoppable = StoppableSteps(sequence, self.options.stop, self.layout.unpack)
        timeline = Timeline(self.times[0]) if t is None else DifferentiableTimeline(t)
        state = f.forward_state
        if self.forward_state is not None:
            state.reach.copied.require_none_assigned()
        again = partial(state.reinstated, _itself if on_graph else None)  # a stand-in would cut the caller's graph
        try:
            with state.first_pass() if self.forward_state is None else again(), f.capturing():
                if launches_count(f.device) and self.total_steps is not None:
                    f.times = f.times.for_steps(self._known_plans, self.tableau.floats.c)
                rhs = recorder.wrap(f)
                y_end = integrate(rhs, self.tableau, sequence, y0, outputs, recorder, timeline, self.make_step, plans)
                ends_finite = compare_within(f, self.times[0], plans[-1].t_end if plans else self.times[0], y_end)
                # Every step adds to y: where the end is finite, y0 was.
                checked = self.options.control is None or f.captured is not None
                if checked and can_read(y_end) and not ends_finite():
                    self._name_non_finite(f, y0, plans)
        except SolverError as error:
            if isinstance(error, NonFiniteError) and (start := non_finite_start(self.layout, y0)) is not None:
                raise start from None
            if self.returns_early and error.t is not None:
                raise StoppedEarly(error, self._truncated(plans, f.forward_state)) from error
            raise
        stats = Stats(self.tableau.name, self.gradient_name, f.f_calls, accepted=len(plans), rejected=sequence.rejected)
        stats.stages = None if f.stage_solver is None else f.stage_solver.work
        if f.captured is not None:
            stats.capture = Captured(f.captured.is_graph, f.captured.recorded, f.captured.replayed)
        if stiffness is not None:
            stats.stiff_at = stiffness.found_at
            stiffness.warn()
        crossing = None if search is None else search.crossing
        stopped_y = None if stoppable is None else stoppable.stopped_y
        if stopped_y is not None and plans[-1].pinned_to == FREE:
            plans[-1] = replace(plans[-1], pinned_to=CONSTANT)
        return outputs.ys(), Trajectory(plans, outputs.step, outputs.sigma, stats, f, crossing, stopped_y, on_graph)

    def up_to_event(self, trajectory: Trajectory) -> "Problem":
        """Return the problem up to the event that was found, with its time as an ordinary output time."""
        if trajectory.crossing is None:
            return self
        return replace(self, times=(self.times[0], trajectory.crossing.t), event=None)

    def _truncated(self, plans: Sequence[StepPlan], forward_state: ForwardState) -> "Problem":
        """Return the same problem over the steps that were accepted before a failure."""
        return replace(self, recorded=tuple(plans), event=None, forward_state=forward_state, returns_early=False)

    def _stage_solver(self, dtype: torch.dtype) -> StageSolver:
        linear, preconditioner = self.options.linear, self.options.preconditioner
        if self.tableau.coupled:
            return CoupledSolver(dtype, linear, preconditioner, self.tableau.floats.matrix)
        return StageSolver(dtype, linear, preconditioner)

    def up_to_stop(self, found: Trajectory) -> "Problem":
        """Return the problem over the steps up to a stop, whose time, a constant, is its last output time."""
        reached, plans = len(found.output_step), list(found.plans)
        times, repeated = self.times[:reached], self.repeated
        one_more = found.stopped_y is not None and plans[-1].t_end != times[-1]
        if one_more:
            times = (*times, plans[-1].t_end)
            plans[-1] = replace(plans[-1], pinned_to=reached)
        if repeated is not None:
            repeated = repeated.up_to(reached, one_more=one_more)
        solved = self._truncated(plans, found.field.forward_state)
        return replace(solved, times=times, repeated=repeated)

    def replay(
        self, f: Field, plans: Sequence[StepPlan], y0: Tensor, t: Tensor | None, recorder: Recorder | None = None
    ) -> Tensor:
        """Return ys of another pass over recorded steps, on the autograd graph."""
        outputs = Outputs(self.times, y0, on_graph=True)
        timeline = Timeline(self.times[0]) if t is None else DifferentiableTimeline(t)
        integrate(f, self.tableau, FixedSteps(plans), y0, outputs, recorder or KeepNothing(), timeline, self.make_step)
        return outputs.ys()

    def step(
        self, f: RightHandSide, plan: StepPlan, y: Tensor, ks: Sequence[Tensor] = (), end: Tensor | None = None
    ) -> Step:
        """Return a recorded step as a Runge-Kutta step, whose stages are evaluated when needed."""
        ends = (plan.open_start, plan.open_end)
        return step_of(self.tableau)(f, self.tableau, plan.t, plan.h, plan.t_end, y, ks, end, ends)

    def slope(self, f: Field, j: int, y: Tensor, t: Tensor | None = None) -> Tensor:
        """Return f at output j, evaluated just inside the span of the solve if func jumps there.

        t: the time of the output, if it is on the autograd graph.
        """
        times = self.times
        time: Time = times[j] if t is None else t
        if times[j] in self.options.jumps:
            time = f.adjacent_time(time, times[j - 1] - times[j] if j else times[-1] - times[0])
        return f(time, y)

    def _name_non_finite(self, f: Field, y0: Tensor, plans: list[StepPlan]) -> None:
        """Raise NonFiniteError with the place, found by solving again, because fixed steps are not checked one by one.

        Only the plans before the failing step remain in `plans`.
        """
        finite: list[StepPlan] = []
        outputs, y0 = Outputs(self.times[:1], y0.detach(), on_graph=False), y0.detach()
        sequence, timeline = CheckedSteps(tuple(plans)), Timeline(self.times[0])
        try:
            with torch.no_grad():
                other = f.for_another_pass()
                integrate(other, self.tableau, sequence, y0, outputs, KeepNothing(), timeline, self.make_step, finite)
        finally:
            plans[:] = finite
        raise NonFiniteError(
            f"the state at t = {self.times[-1]:.9g} is not finite, but it was when the solve was repeated: func is not "
            "deterministic"
        )


def _itself(x: Tensor) -> Tensor:
    return x
