"""A validated initial value problem, ready to be solved with any gradient strategy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from symplectic_adjoint.clock import (
    AdaptiveClock,
    CheckedClock,
    Clock,
    FixedClock,
    even_count,
    even_steps,
    pins_on,
    steps_between,
)
from symplectic_adjoint.control import Norm
from symplectic_adjoint.errors import NonFiniteError, TooManySteps
from symplectic_adjoint.field import Field, Func, Parameters
from symplectic_adjoint.grid import Grid, StepPlan
from symplectic_adjoint.loop import Forget, Recorder, integrate
from symplectic_adjoint.options import Options
from symplectic_adjoint.outputs import Outputs
from symplectic_adjoint.step import Step
from symplectic_adjoint.tableau import ButcherTableau
from symplectic_adjoint.timeline import DifferentiableTimeline, Timeline


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


@dataclass
class Trajectory:
    """The forward pass as it went: its steps, and where the outputs came from."""

    plans: Sequence[StepPlan]
    output_step: Sequence[int]
    output_sigma: Sequence[float]
    stats: Stats

    @property
    def grid(self) -> Grid:
        return Grid.from_plans(self.plans, self.output_step, self.output_sigma)

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
    """dy/dt = f(t, y; theta) over `times`, with everything decided but the gradient."""

    func: Func
    parameters: Parameters
    tableau: ButcherTableau
    times: tuple[float, ...]
    options: Options
    gradient_name: str

    def field(self, like: Tensor, *, watch: bool = False) -> Field:
        return Field(self.func, self.parameters.trainable, like, watch=watch)

    def clock(self, times: Sequence[float], norm: Norm | None = None) -> Clock:
        """Steps over `times`, which may be a part of the problem's own, in either direction.

        norm replaces the one that measures the error, for a state that is not the problem's own.
        """
        options = self.options
        if options.control is not None:
            control = options.control if norm is None else replace(options.control, norm=norm)
            targets = range(1, len(times)) if options.land else range(max(1, len(times) - 1), len(times))
            return AdaptiveClock(self.tableau, times[0], [(times[j], j) for j in targets], control)
        return FixedClock(self._fixed_plans(times) if len(times) > 1 else ())

    def solve(
        self, y0: Tensor, recorder: Recorder, *, watch: bool = False, on_graph: bool = False, t: Tensor | None = None
    ) -> tuple[Tensor, Trajectory]:
        """ys of one forward pass, and how it went.

        on_graph: for autograd to go through it, and through the times too where t is given.
        """
        f = self.field(y0, watch=watch)
        outputs = Outputs(self.times, y0, on_graph=on_graph)
        timeline = Timeline(self.times[0]) if t is None else DifferentiableTimeline(t)
        clock = self.clock(self.times)
        plans, y_end = integrate(f, self.tableau, clock, y0, outputs, recorder, timeline)
        if self.options.control is None and not bool(torch.isfinite(y_end).all()):
            self._name_non_finite(y0, plans)
        stats = Stats(self.tableau.name, self.gradient_name, f.f_calls, accepted=len(plans), rejected=clock.rejected)
        return outputs.ys(), Trajectory(plans, outputs.step, outputs.sigma, stats)

    def replay(self, f: Field, plans: Sequence[StepPlan], y0: Tensor, t: Tensor | None) -> Tensor:
        """ys once more over recorded steps, on the graph."""
        outputs = Outputs(self.times, y0, on_graph=True)
        timeline = Timeline(self.times[0]) if t is None else DifferentiableTimeline(t)
        integrate(f, self.tableau, FixedClock(plans), y0, outputs, Forget(), timeline)
        return outputs.ys()

    def step(self, f: Field, plan: StepPlan, y: Tensor, ks: Sequence[Tensor] = (), end: Tensor | None = None) -> Step:
        """A recorded step, to be evaluated again as far as needed."""
        return Step(f, self.tableau, plan.t, plan.h, plan.t_end, y, ks, end)

    def _fixed_plans(self, times: Sequence[float]) -> Iterable[StepPlan]:
        step_size, points = self.options.step_size, self.options.points
        if step_size is not None:
            ends = range(1, len(times)) if self.options.land else (len(times) - 1,)
            parts = [(0 if i == 0 else ends[i - 1], j) for i, j in enumerate(ends)]
            self._limit(sum(even_count(times[i], times[j], step_size) for i, j in parts))
            return chain.from_iterable(even_steps(times[i], times[j], step_size, pinned_to=j) for i, j in parts)
        grid = times if points is None else self._between(points, times)
        self._limit(len(grid) - 1)
        return steps_between(grid, range(1, len(times)) if points is None else pins_on(grid, times))

    def _limit(self, steps: int) -> None:
        if steps > self.options.max_num_steps:
            raise TooManySteps(f"the grid has {steps} steps, more than max_num_steps={self.options.max_num_steps}")

    def _between(self, points: Sequence[float], times: Sequence[float]) -> list[float]:
        """Grid points within times, ends included, in the order of times; with the outputs where steps land on them."""
        low, high = sorted((times[0], times[-1]))
        inside = {p for p in points if low < p < high} | {times[0], times[-1]}
        if self.options.land:
            inside |= set(times)
        return sorted(inside, reverse=math.copysign(1.0, times[-1] - times[0]) < 0.0)

    def _name_non_finite(self, y0: Tensor, plans: Sequence[StepPlan]) -> None:
        """Fixed grids are not watched while they run; a solve that went wrong is run again to say where."""
        with torch.no_grad():
            y0 = y0.detach()
            f = self.field(y0)
            outputs = Outputs(self.times[:1], y0, on_graph=False)
            integrate(f, self.tableau, CheckedClock(plans), y0, outputs, Forget(), Timeline(self.times[0]))
        raise NonFiniteError(
            f"the state at t = {self.times[-1]:.9g} is not finite, and was when the solve was run again: func is not "
            "deterministic"
        )
