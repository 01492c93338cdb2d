"""The continuous adjoint method: an approximate gradient, by solving the adjoint equation backwards in time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.backward.adjoint_field import AdjointField, AdjointStep
from symplectic_adjoint.backward.checkpoints import NoCheckpoints
from symplectic_adjoint.backward.implicit_methods import require_pair, require_solvable_stages
from symplectic_adjoint.backward.state_sketch import Marks, StateSketch
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.errors import ReversalError, UnsupportedCombination
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.layout import HALF_DTYPES
from symplectic_adjoint.field.stage_solver import StageSolver
from symplectic_adjoint.methods.registry import METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.callbacks import Callbacks
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.inputs import resolved_tolerances
from symplectic_adjoint.solve.options import read_options
from symplectic_adjoint.solve.outputs import Outputs
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.step_control import Norm, StepControl, on_device, packed_norm, rms_norm
from symplectic_adjoint.solve.time_loop import integrate
from symplectic_adjoint.solve.timeline import Timeline, stack_times
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import inner


@dataclass(frozen=True)
class Continuous(Strategy):
    """Solve y' = f, lam' = -(df/dy)^T lam backwards from output to output (Chen et al., NeurIPS 2018).

    NOT the gradient of the steps taken: it has the error of this second solve. y is recomputed backwards from each
    stored output. dL/dtheta is integrated with the weights of the accepted steps, so it costs s tensors like theta for
    the current step, and is not part of the state. It takes no part in step control (the seminorm of Kidger, Chen and
    Lyons, ICML 2021) unless options has "norm": "mixed".

    rtol, atol, method, options: those of the second solve; None means those of the forward pass. The norm in options:
    "seminorm" for the larger of y's and lam's, "mixed" for the largest of those and the root mean square of each
    parameter's gradient, or a function of a state. "mixed" finds the steps that dL/dtheta needs where y needs none (a
    term of func whose coefficient is zero), at the same f calls per step and a few tensors like the largest
    parameter. Where the method is implicit, stages of y are solved for, then those of lam; theta is in no Jacobian. An
    additive method needs func as a pair, of which any other one takes the sum. Raises ValueError for a tolerance that
    is not positive and finite, and for an unknown method.
    """

    also_called: ClassVar[tuple[str, ...]] = ("adjoint", "odeint_adjoint", "continuous_adjoint", "BacksolveAdjoint")
    exact: ClassVar[bool] = False
    uses_outputs: ClassVar[bool] = True
    takes_implicit: ClassVar[bool] = True
    second_solve: ClassVar[bool] = True

    rtol: float | None = None
    atol: float | None = None
    method: str | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is not None and not (isinstance(value, int | float) and 0.0 < value < math.inf):
                raise ValueError(f"Continuous({name}=...) must be a positive number, got {value!r}")
        if self.method is not None and self.method not in METHODS:
            raise ValueError(f"Continuous(method=...) must be one of {', '.join(METHODS)}, got {self.method!r}")

    @property
    def _is_mixed(self) -> bool:
        return (self.options or {}).get("norm") == "mixed"

    def memory_formula(self) -> str:
        return "2 (s + 1) D + s P + A"

    def keeper(self, given: ForwardPass) -> "_ValuesAtEnds":
        back = self._backward_problem(given.problem)  # raise for bad options before func is called
        if back.tableau.coupled:
            raise UnsupportedCombination(
                f"the second solve of gradient='continuous' does not work with {back.tableau.name}, whose stages are "
                "coupled: give it another method, such as Continuous(method='kvaerno5'), or take an exact gradient"
            )
        if self.method is not None:
            name, dtypes = f"Continuous(method={self.method!r})", [part.dtype for part in back.layout.parts]
            require_pair(name, back.tableau, back.caller)
            require_solvable_stages(name, back.tableau, given.y0, dtypes, back.options.linear)
        return _ValuesAtEnds()

    def backward(self, given: BackwardPass) -> Gradients:
        problem, times, ys, grad_ys = given.problem, given.problem.times, given.ys, given.grad_ys
        assert ys is not None
        back = self._backward_problem(problem)
        compare_first = _comparison(given, back.tableau)  # by the forward pass's own stages, if they are implicit
        adjoint = AdjointField(given.field, compare_first, _stage_solver(given.field, problem, back))
        make_step = AdjointStep if back.tableau.implicit else Step
        control = back.options.control
        norm = _larger_of_two(control.norm) if control else None
        if control is not None and self._is_mixed:
            control = _ControlOfAll(**{x.name: getattr(control, x.name) for x in fields(control)}, adjoint=adjoint)
            back = replace(back, options=replace(back.options, control=control))
        unpack = problem.layout.unpack
        callbacks = Callbacks(problem.caller, lambda z: (unpack(z[0]), unpack(z[1])), "_adjoint")
        last = len(given.trajectory.output_step) - 1
        lam = grad_ys[last]
        variables = given.field.forward_state.reach.copied
        if self.check and not callbacks.names:
            variables.require_none_assigned()
        t_bars: list[Tensor] = []
        misses: list[Tensor] = []
        """How far each output is from the y that was recomputed there."""
        with torch.no_grad(), variables.followed_for_now():
            for j in range(last, 0, -1):
                if given.t is not None:
                    t_bars.append(inner(problem.slope(given.field, j, ys[j]), grad_ys[j]))
                if times[j] == times[j - 1]:  # two outputs at the same time
                    lam = lam + grad_ys[j - 1]
                    continue
                start = torch.stack((ys[j], lam))
                segment = (times[j], times[j - 1])
                outputs = Outputs(segment[:1], start, on_graph=False)
                sequence = callbacks.wrap(back.step_sequence(segment, norm))
                end = integrate(adjoint, back.tableau, sequence, start, outputs, adjoint, Timeline(times[j]), make_step)
                lam = end[1] + grad_ys[j - 1]
                if back.tableau.implicit and self.check:
                    misses.append(torch.linalg.vector_norm(end[0] - ys[j - 1], math.inf))
            t_bar = None
            if given.t is not None:
                if last > 0:
                    t_bars.append(-inner(problem.slope(given.field, 0, given.y0), lam - grad_ys[0]))
                entries = len(given.t)
                t_bar = stack_times([*t_bars[::-1], *([0.0] * entries)][:entries], given.t)
            if misses:
                _require_reversed(given, torch.stack(misses).amax(), ys.abs().amax())
        given.trajectory.stats.accepted_backward += adjoint.accepted
        return Gradients(lam, t_bar, adjoint.params.total)

    def _backward_problem(self, problem: Problem) -> Problem:
        """Return the problem of the second solve, with the tolerances, method and options that were given for it."""
        control, times = problem.options.control, problem.times
        tableau = problem.tableau if self.method is None else METHODS[self.method]
        problem = replace(problem, recorded=None, event=None, tableau=tableau)
        if self.options is not None or self.method is not None:
            given = dict(self.options or {})
            if given.get("norm") in ("seminorm", "mixed"):  # norms of more than a state, which are made here
                del given["norm"]
            rtol, atol = (control.rtol, control.atol) if control else (1e-7, 1e-9)
            norm_of = partial(packed_norm, problem.layout)
            options, tableau = read_options(given, tableau, rtol, atol, times[::-1], _no_grid, norm_of)
            control = options.control
            if control is None and self._is_mixed:
                raise UnsupportedCombination(
                    "norm 'mixed' belongs to adaptive step sizes, and the second solve has fixed steps: leave it out"
                )
            stops, jumps = problem.options.stops | options.stops, problem.options.jumps | options.jumps
            problem = replace(problem, options=replace(options, stops=stops, jumps=jumps), tableau=tableau)
        if control is not None:
            rtol = control.rtol if self.rtol is None else self.rtol
            atol = control.atol if self.atol is None else self.atol
            rtol, atol = resolved_tolerances(rtol, atol, problem.layout)
            problem = replace(problem, options=replace(problem.options, control=replace(control, rtol=rtol, atol=atol)))
        return problem


def _stage_solver(f: Field, forward: Problem, back: Problem) -> StageSolver | None:
    """Return the solver of the second solve's stages, that of the forward pass if it suits; None if it has none."""
    if not back.tableau.implicit:
        return None
    linear, preconditioner, known = back.options.linear, back.options.preconditioner, f.stage_solver
    given = forward.options
    if forward.tableau.coupled or known is None or (linear, preconditioner) != (given.linear, given.preconditioner):
        f.stage_solver = StageSolver(f.dtype, linear, preconditioner)
        if known is not None:
            f.stage_solver.work.residual = known.work.residual
    return f.stage_solver


def _comparison(given: BackwardPass, tableau: ButcherTableau) -> Callable[[Tensor], None] | None:
    """Return the comparison of f at the end of the solve, where the second solve starts, with the forward pass.

    None if the forward pass did not call f there, or nothing is compared; f at the start may be compared instead.
    tableau: the method of the second solve, which calls f first at its start if it is explicit.
    """
    values, plans = given.values, given.trajectory.plans
    if values is None or not plans:
        return None
    s = given.problem.tableau.stages
    if values.has_last_value and not tableau.implicit and plans[-1].pinned_to == len(given.problem.times) - 1:
        return partial(values.compare_last_value, s)
    step = given.problem.step(given.field, plans[0], given.y0.detach())
    with torch.no_grad():
        values.compare_first_value(step.evaluate(1)[0])
    return None


def _require_reversed(given: BackwardPass, miss: Tensor, size: Tensor) -> None:
    """Raise ReversalError if the y that was recomputed misses an output by more than half of their size.

    An explicit method follows what grows backwards in steps as short as it grows; a step of an implicit one may be so
    long that nothing else shows it. Raises FunctionChanged instead if that is the reason.
    """
    off, largest = torch.stack((miss, size)).tolist()
    if largest > 0.0 and not off <= 0.5 * largest:
        given.settle()
        raise ReversalError(
            f"the second solve of gradient={given.problem.gradient_name!r} missed an output by {off / largest:.1e} of "
            "the size of y: it integrates y backwards, where all that decays grows. Give more output times, a tighter "
            'tolerance, or use gradient="symplectic"'
        )


class _ValuesAtEnds(NoCheckpoints):
    """Keeps no state, and marks f at both ends of the solve, as far as the steps called it there."""

    _first_value: StateSketch | None = None

    def accept(self, plan: StepPlan, step: Step) -> None:
        if self._first_value is None:
            self._first_value = StateSketch(step.ks[0])

    def finish(self, step: Step) -> None:
        slope = step.end_slope()
        last_value = None if slope is None else StateSketch(slope)
        self.marks = Marks(StateSketch(step.end()), self._first_value, last_value)


def _no_grid(constructor: Any) -> Any:
    raise UnsupportedCombination(
        "the backward solve goes from output to output and cannot follow a grid of its own: give step_size instead"
    )


def _larger_of_two(norm: Norm) -> Norm:
    """Return the norm of (y, lam) stacked: the larger of their norms, each as given for y."""
    return lambda z: torch.maximum(*(on_device(norm(x), x.device) for x in z))


@dataclass(frozen=True)
class _ControlOfAll(StepControl):
    """Step control by the error of y, lam and every parameter's gradient, whichever is largest over its tolerance."""

    adjoint: AdjointField | None = None

    def error_norms(self, step: Step) -> list[Tensor]:
        assert self.adjoint is not None
        norms = super().error_norms(step)
        rtol, atol = (float(x.amin() if isinstance(x, Tensor) else x) for x in (self.rtol, self.atol))
        for i, weights in enumerate(step.tableau.terms.errors):
            for error, size in self.adjoint.parameter_errors(step, weights):
                over = error.div_(size.mul_(rtol).add_(atol))
                of_parameter = rms_norm(over.float() if over.dtype in HALF_DTYPES else over)
                norms[i] = torch.maximum(norms[i], of_parameter.to(norms[i]))
        return norms
