"""The verdict on a difference between a value of the forward pass and the same value recomputed: change, or noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from symplectic_adjoint.backward.state_sketch import StateSketch
from symplectic_adjoint.errors import FunctionChanged, NoiseWarning, warn_once
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.precision import coarsest_eps, value_bound
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.outputs import Outputs
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.step_sequences import FixedSteps
from symplectic_adjoint.solve.time_loop import KeepNothing, integrate
from symplectic_adjoint.solve.timeline import Timeline
from symplectic_adjoint.steps.runge_kutta import Step

STATE_ULPS = 4.0
"""How many spacings of y the end of a step may differ by: it is a sum of few terms, rounded in y's precision."""
REPEATS = 3
"""How often f is evaluated again where a difference was found."""
NOISE = 10.0
"""A difference of up to this many times that of the repeated evaluations is noise, as of atomic additions."""

END, WHOLE = -1, -2
"""In place of a stage: the end of a step, and the end of a solve that was repeated as a whole."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference in stage `stage` of step n, or in its end, in the maximum norm.

    mark: the sketch of the value of the forward pass, if it was compared with a state that was only restored.
    """

    n: int
    stage: int
    size: float
    mark: StateSketch | None = None


def eps_of(problem: Problem, f: Field) -> float:
    """Return the rounding of the lowest precision in which f computes."""
    parameters = problem.parameters
    dtypes = [f.dtype, *(p.dtype for p in problem.layout.parts)]
    dtypes += [*(p.dtype for p in (*f.params, *parameters.frozen)), *f.search.precisions]
    return coarsest_eps(dtypes, f.device, f.forward_state.autocast_dtype, problem.reach.modules)


def end_error(f: Field) -> float:
    """Return how far the end of a step may be off, relative to it, as its stages were solved for; 0 if explicit."""
    return 0.0 if f.stage_solver is None else f.stage_solver.state_error


def stage_error(f: Field, hg: float) -> float:
    """Return how far f at a stage may be from the stage, relative to |y|; 0 for an explicit one, whose g is 0."""
    return 0.0 if f.stage_solver is None or hg == 0.0 else f.stage_solver.defect / abs(hg)


@torch.no_grad()
def judge(problem: Problem, plans: Sequence[StepPlan], f: Field, y0: Tensor, found: Difference) -> None:
    """Raise FunctionChanged unless the difference is rounding error, or noise, of which NoiseWarning warns once.

    The state there has been freed: it is recomputed from y0, and f is evaluated three times more there.
    """
    eps, recorder = eps_of(problem, f), _LastStep()
    end = _repeat(problem, plans[: found.n + 1], f, y0, recorder)
    step, plan = recorder.step, plans[found.n]
    s = step.tableau.stages
    i = found.stage if found.stage >= 0 else s - 1
    again = list(_values(f, step, i))
    if found.mark is not None and _is_marked(again[0], found.mark, value_bound(eps)):
        return
    k_spread, k_sizes = _spread(again), [_size(k) for k in step.ks[:s]]
    if found.stage >= 0:
        rounding = stage_error(f, plan.h * step.tableau.floats.diagonal[i]) * _size(step.y)
        spread, size = k_spread, _size(again[0])
    elif found.stage == END:
        b = [abs(plan.h * weight) for weight in step.tableau.floats.b]
        spread = max(k_spread * sum(b), _spread(_ends(problem, f, plan, step.y)))
        size = sum(weight * k for weight, k in zip(b, k_sizes, strict=False))
        rounding = (STATE_ULPS * torch.finfo(f.dtype).eps + end_error(f)) * _size(end)
    else:
        ends = [end, *(_repeat(problem, plans, f, y0, _LastStep()) for _ in range(REPEATS - 1))]
        spread, size = _spread(ends), max(_size(end), sum(abs(p.h) for p in plans) * max(k_sizes))
        rounding = (STATE_ULPS * torch.finfo(f.dtype).eps + end_error(f)) * _size(end)
    if found.size <= rounding + value_bound(eps) * size:
        return
    relative = found.size / size if size > 0.0 else math.inf
    if found.size <= NOISE * spread + rounding and relative <= math.sqrt(eps):
        warn_once(
            NoiseWarning,
            "noise",
            f"func returns slightly different values for the same arguments: near t = {plan.t:.9g} a value differs by "
            f"{relative:.2g} of its size from that of the forward pass. The gradient is as inexact as that. A "
            "deterministic func (torch.use_deterministic_algorithms) makes it exact to rounding",
        )
        return
    raise _changed(step.time(i), relative, repeats=not spread > rounding)


def _is_marked(k: Tensor, mark: StateSketch, bound: float) -> bool:
    """Return whether a value of f, recomputed from the exact state, has this mark after all."""
    return _size(StateSketch(k).minus(mark)) <= bound * mark.spread * _size(k)


def _changed(t: float | Tensor, relative: float, *, repeats: bool) -> FunctionChanged:
    t = float(t)
    if repeats:
        why = (
            "Something that it reads has changed in between: a variable of its closure, an entry of a list or a dict, "
            "an attribute of an object, a parameter's data. Bind the value in a default argument (lambda t, y, u=u: "
            "...), hold it in a buffer of func's module, or use"
        )
    else:
        why = (
            "It returns other values each time that it is called with the same arguments: numbers that it draws from "
            "torch's generator are repeated, those from numpy, random or a generator of its own are not. Draw them "
            "from torch's generator or before the solve, or use"
        )
    return FunctionChanged(
        f"func, evaluated again in the backward pass near t = {t:.9g}, does not return what it returned in the forward "
        f"pass: the difference is {relative:.2g} of its size, and the gradient would be wrong. {why} "
        'gradient="backprop"',
        t,
        relative,
    )


class _LastStep(KeepNothing):
    """Keeps the last step."""

    step: Step

    def finish(self, step: Step) -> None:
        self.step = step


def _repeat(problem: Problem, plans: Sequence[StepPlan], f: Field, y0: Tensor, recorder: _LastStep) -> Tensor:
    """Return the state after these steps, taken once more."""
    y0 = y0.detach()
    start = problem.times[:1]
    outputs, timeline = Outputs(start, y0, on_graph=False), Timeline(start[0])
    return integrate(f, problem.tableau, FixedSteps(plans), y0, outputs, recorder, timeline, problem.make_step)


def _values(f: Field, step: Step, i: int) -> Iterator[Tensor]:
    """Yield f at stage i of a step, evaluated several times, with and without grad mode."""
    t, y = step.time(i), step.state(i)
    for repeat in range(REPEATS):
        with step.evaluating(i):
            value = f(t, y) if repeat % 2 == 0 else f.linearize(t, y, with_value=True).k
        assert value is not None
        yield value


def _ends(problem: Problem, f: Field, plan: StepPlan, y: Tensor) -> list[Tensor]:
    """Return the end of a step with the Jacobian at hand and with one of its own."""
    if f.stage_solver is None:
        return []
    ends = []
    for again in range(2):
        if again:
            f.stage_solver.restart()
        ends.append(problem.step(f, plan, y).end())
    return ends


def _spread(values: Sequence[Tensor]) -> float:
    return max((_size(a - b) for a, b in combinations(values, 2)), default=0.0)


def _size(x: Tensor) -> float:
    return torch.linalg.vector_norm(x, math.inf).item()
