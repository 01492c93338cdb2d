"""The solution as a function of time."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.arguments import Arguments, MethodKeywords, build_problem, shows_keywords
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import UnsupportedCombination, told_apart
from symplectic_adjoint.field.lost_gradients import GradientNeeded
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.field.transforms import transforming
from symplectic_adjoint.solve.grid import Grid, StepPlan
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.repeated_times import RepeatedTimes
from symplectic_adjoint.solve.stats import Stats
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.runge_kutta import Step


@untraced
@shows_keywords(MethodKeywords)
def odeint_dense(
    func: FuncOrPair,
    y0: Any,
    t0: Tensor | float,
    t1: Tensor | float,
    *,
    gradient: str | Strategy | None = None,
    **keywords: Unpack[MethodKeywords],
) -> "DenseSolution":
    """Solve from t0 to t1 and return y as a function of the time between them (see DenseSolution).

    t0, t1: two different numbers or 0-dim tensors. The other arguments are those of odeint. Raises odeint's errors, and
    UnsupportedCombination for a method without adequate dense output (dopri8, gl4, gl6, radauIIA5), for a gradient with
    its own steps (mali, reversible), under torch.func and in forward mode.
    """
    t = torch.stack([torch.as_tensor(x, dtype=torch.float64, device="cpu").reshape(()) for x in (t0, t1)])
    given = Arguments.of("odeint_dense", keywords, func=func, y0=y0, t=t, gradient=gradient)
    problem, strategy, y = build_problem(given)
    if len(problem.times) == 1:
        raise ValueError(f"t0 and t1 must differ, got {problem.times[0]:g} twice: there, y is y0")
    if strategy.own_steps:
        raise UnsupportedCombination(
            f'gradient={problem.gradient_name!r} takes its own steps, which have no dense output: use "symplectic"'
        )
    if not problem.tableau.interpolates:
        others = "'kvaerno5' or 'radauIIA3'" if problem.tableau.implicit else "'dop853' or 'dopri5'"
        raise UnsupportedCombination(
            f"method {problem.tableau.name!r} has no dense output as accurate as its steps: use {others}"
        )
    if transforming():
        raise UnsupportedCombination("odeint_dense does not work under torch.func or forward mode: use odeint")
    return DenseSolution(problem, strategy, y, t)


class DenseSolution:
    """y(t) between t0 and t1, in either direction of time. grid and stats are those of the solve.

    Called with a number or a 0-dim tensor, it returns a state like y0. Called with a 1-D tensor of n times, in any
    order, it returns ys with a leading dimension of n. Differentiable in y0, t0, t1, the parameters and the times. If
    an input of the solve or the times need a gradient, a call repeats the recorded steps with the chosen gradient, at s
    f calls per step; otherwise it only evaluates polynomials. Raises ValueError for times outside the span, and
    RuntimeError if an input was changed in place since the solve and the steps must be repeated.
    """

    def __init__(self, problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor):
        self._strategy, self._y0, self._t = strategy, y0, t
        through_state = y0.requires_grad or t.requires_grad
        differentiates = torch.is_grad_enabled() and (through_state or problem.may_need_gradient)
        calls, first = 0, None
        try:
            first = _first_pass(problem, y0, differentiates, through_state)
        except GradientNeeded as needed:
            differentiates, calls = True, needed.f_calls
        trajectory, keeper = first or _first_pass(replace(problem, calls_before=calls), y0, True, through_state)
        f = trajectory.field
        forward_state = f.forward_state
        if differentiates and f.off_graph.graphless is None:
            f.require_repeatable()
            forward_state.guard(f.params, f.search.reached)
        self._inputs = [y0, t, *forward_state.guarded.saved]
        self._versions = [None if x.is_inference() else x._version for x in self._inputs]
        self._problem = replace(problem, forward_state=forward_state)  # later calls of func belong to this solve
        self._steps = keeper.steps if isinstance(keeper, _KeepSteps) else None
        self._plans = trajectory.plans
        self.grid: Grid = trajectory.make_grid()
        self.stats: Stats = trajectory.stats

    @untraced
    def __call__(self, t: Tensor | float) -> Any:
        times = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")
        if times.ndim > 1 or not times.is_floating_point():
            raise ValueError(
                f"t must be one time or a 1-D floating point tensor of them, got shape {tuple(times.shape)}"
            )
        flat = times.reshape(-1)
        numbers = flat.detach().to(dtype=torch.float64, device="cpu").tolist()
        start, end = self._problem.times
        for x in numbers:
            if not min(start, end) <= x <= max(start, end):
                first, last, got = told_apart(start, end, x)
                raise ValueError(f"t must lie between t0 = {first} and t1 = {last}, got {got}")
        differentiates = transforming() or (torch.is_grad_enabled() and times.requires_grad)
        if self._steps is not None and not differentiates:
            ys = self._evaluated(numbers, self._steps)
        else:
            ys = self._solved(flat, numbers)
        if times.ndim == 0:
            ys = ys[0]
            return ys if self._problem.layout.is_identity else self._problem.layout.unpack_plain(ys)
        return ys if self._problem.layout.is_identity else self._problem.layout.unpack_outputs(ys)

    @torch.no_grad()
    def _evaluated(self, numbers: Sequence[float], steps: Sequence[Step]) -> Tensor:
        sign = 1.0 if self._problem.times[1] >= self._problem.times[0] else -1.0
        ends = [sign * plan.t_end for plan in self._plans]
        ys = self._y0.new_empty((len(numbers), *self._y0.shape))
        inside: dict[int, list[int]] = {}
        for row, x in enumerate(numbers):
            n = bisect_left(ends, sign * x)
            if x == self._plans[n].t_end:
                ys[row] = steps[n].end()
            else:
                inside.setdefault(n, []).append(row)
        for n, rows in inside.items():
            plan = self._plans[n]
            ys[rows] = torch.cat(steps[n].outputs([(numbers[row] - plan.t) / plan.h for row in rows]))
        return ys

    def _solved(self, flat: Tensor, numbers: Sequence[float]) -> Tensor:
        """Return ys at these times, as the outputs of another solve over the recorded steps."""
        for x, version in zip(self._inputs, self._versions, strict=True):
            if version is not None and x._version != version:
                raise RuntimeError(
                    f"y0, t, a parameter or a buffer of shape {tuple(x.shape)} was changed in place since "
                    "odeint_dense solved: solve again"
                )
        if self._strategy.check and self._problem.forward_state is not None:
            self._problem.forward_state.require_unchanged()
        start, end = self._problem.times
        order = sorted(range(len(numbers)), key=numbers.__getitem__, reverse=end < start)
        inside = [numbers[i] for i in order]
        # A time equal to t0 or t1 is an output of its own, with its own gradient.
        repeated = RepeatedTimes.of(inside)
        distinct = inside if repeated is None else [inside[j] for j in repeated.first]
        problem = replace(
            self._problem,
            times=(start, *distinct, end),
            recorded=_repinned(self._plans, len(distinct) + 1),
            repeated=None if repeated is None else repeated.between_ends(),
        )
        order = torch.tensor(order, dtype=torch.int64, device=flat.device)
        t = torch.cat([self._t[:1], flat[order].to(self._t), self._t[1:]])
        ys, _ = run(problem, self._strategy, self._y0, t)
        return ys[1:-1][order.to(ys.device).argsort()]


def _first_pass(
    problem: Problem, y0: Tensor, differentiates: bool, through_state: bool
) -> tuple[Trajectory, KeepNothing]:
    """Solve, and keep the steps if no gradient is wanted. Raises GradientNeeded if one is, as func shows."""
    keeper, watch = KeepNothing() if differentiates else _KeepSteps(), torch.is_grad_enabled() and not differentiates
    with torch.no_grad():
        _, trajectory = problem.solve(
            y0.detach(), keeper, watch=watch, adopt=differentiates, through_state=through_state
        )
    return trajectory, keeper


class _KeepSteps(KeepNothing):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan
        step.evaluate(step.tableau.interpolant.rows)  # now, before func or its parameters can change
        self.steps.append(step)


def _repinned(plans: Sequence[StepPlan], last: int) -> tuple[StepPlan, ...]:
    """Return the same steps, with the last one pinned to entry `last` of t."""
    return tuple(replace(plan, pinned_to=last) if plan.pinned_to >= 0 else plan for plan in plans)
