"""The public functions odeint and solve: check the arguments before func is called, then solve."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.arguments import (
    Arguments,
    SolveKeywords,
    build_problem,
    shows_keywords,
    warn_of_adjoint_callbacks,
)
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import SolverError
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.field.parameters import Params
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.field.transforms import transforming
from symplectic_adjoint.solve.event_time import through_event_time
from symplectic_adjoint.solve.grid import Grid
from symplectic_adjoint.solve.problem import Problem, StoppedEarly
from symplectic_adjoint.solve.repeated_times import RepeatedTimes
from symplectic_adjoint.solve.stats import Stats
from symplectic_adjoint.solve.trajectory import Trajectory


@dataclass(frozen=True)
class Solution:
    """A finished solve.

    ys: the outputs in y0's structure, each part of shape (len(t), *part.shape), differentiable.
    t: the output times as given; with event_fn, t[0] and the time of the event.
    grid: the steps as taken.
    stats: the counts of the solve; those of the backward pass are added when it runs.
    event_t: the time of the event, a differentiable 0-dim tensor; None without event_fn.
    failure: the error that ended the solve early, with on_failure="return"; ys is NaN from there on.
    stopped_t, stopped_y: the time at which option "stop" ended the solve, a constant, and the state there, in y0's
        structure and differentiable; None if it did not end it. ys is NaN beyond.
    """

    ys: Any
    t: Tensor
    stats: Stats
    event_t: Tensor | None = None
    failure: SolverError | None = None
    stopped_t: float | None = None
    stopped_y: Any = None
    _make_grid: Callable[[], Grid] = field(kw_only=True, repr=False)

    @cached_property
    def grid(self) -> Grid:
        """The recorded steps, collected on first access, which for a short solve takes as long as the solve."""
        return self._make_grid()


@untraced
def odeint(
    func: FuncOrPair,
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    gradient: str | Strategy | None = None,
    params: Params | None = None,
    memory_budget: Any = None,
    compile: bool = False,
    capture: bool | str = False,
    accumulate: str | None = None,
    on_failure: str = "raise",
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0 and return y at every time in t.

    Takes torchdiffeq's arguments, and additional ones from `gradient` on. Differentiable in y0, t, func's parameters
    and `params`. Every gradient except "continuous" is exact: the gradient of the steps taken, to rounding error.

    func: called as func(t, y), with t a 0-dim tensor of y's real dtype; returns dy/dt with y's structure and shapes, in
        any precision. Its tensors that need a gradient are found: of its module, its variables, and its first call.
        For an additive method such as "kencarp4", a pair (explicit, implicit) of such functions, whose sum is dy/dt.
    y0: the initial state, a floating point or complex tensor of any shape, or a tuple, list, dict or nest of those.
    t: output times, a 1-D floating point tensor, increasing or decreasing; times may repeat. Kept in float64.
    rtol, atol: an adaptive step is accepted if the root mean square of its error over atol + rtol |y| is at most 1.
        Numbers, tensors, arrays or lists that broadcast to y0, or one for each part of it; raised, with a warning, to
        what y0's dtype resolves.
    method, options: a name in METHODS, by default "dopri5" (gradient="mali" has its own), and the options listed in
        docs/coming-from-torchdiffeq.md: {"step_size": 0.1} for fixed steps. For stiff problems take an implicit method
        such as "kvaerno5"; {"linear": "gmres"} forms no Jacobian. Not with compile, capture=True, complex y0,
        torch.func or gradients "mali" and "reversible"; see docs/stiff.md.
    event_fn: called as event_fn(t, y); returns a tensor. The solve ends where a component changes sign or jumps across
        zero. t must then have two entries, of which the second only gives the direction of time.
    gradient: a name in GRADIENTS, an object such as Symplectic(keep="stages"), or "auto"; by default "symplectic".
    params: tensors that only later calls of func use, from a list, dict or object; a module stands for its parameters.
    memory_budget: for gradient="auto", a bound on the bytes that the solve and its backward pass hold at any one time,
        as a number or a string such as "2 GiB". None: that of set_default, or 80 % of what the device has free.
    compile: whether to compile func and its VJP with torch.compile, once for all solves and step sizes. Needs a C++
        compiler and a func of tensor operations only; for "symplectic", "stages" and "revolve".
    capture: True to replay steps as CUDA graphs, recorded once; "auto": where func allows it. See docs/gpu.md.
    accumulate: None, or for long solves in float32 how dL/dy and dL/dtheta are summed over the steps: "float64", or
        "compensated", as accurate in their own dtype. For "symplectic", "stages", "revolve", "aca" and "auto".
    on_failure: "raise", or "return" to return the outputs up to the time reached and NaN beyond.

    Returns y in y0's structure, each part of shape (len(t), *part.shape). With event_fn, returns (event_t, y): the time
    of the event, a 0-dim tensor, and y at t[0] and then, differentiable through that time. If event_fn jumps there, a
    backward pass that needs the derivative of that time raises SolverError.

    Raises ValueError or TypeError for arguments that are invalid or (UnsupportedCombination) do not work together,
    where possible before func is called; SolverError if the solve fails (NonFiniteError, StepSizeUnderflow,
    TooManySteps, EventNotFound, StageNotSolved; in the backward pass ReversalError, FunctionChanged, StageNotSolved);
    LostGradient if the gradient of a tensor that func uses would be lost; BudgetTooSmall, with the least memory_budget;
    CompilerNotFound.
    """
    given = Arguments(
        func=func, y0=y0, t=t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn,
        gradient=gradient, params=params, memory_budget=memory_budget, compile=compile, capture=capture,
        accumulate=accumulate, on_failure=on_failure,
    )  # fmt: skip
    solution = _solution(given)
    return solution.ys if event_fn is None else (solution.event_t, solution.ys)


@untraced
@shows_keywords(SolveKeywords)
def solve(func: FuncOrPair, y0: Any, t: Tensor, **keywords: Unpack[SolveKeywords]) -> Solution:
    """Solve like odeint, and return a Solution: the outputs, the recorded steps and the counts.

    Takes odeint's arguments and raises its errors.
    """
    return _solution(Arguments.of("solve", keywords, accepted=SolveKeywords, func=func, y0=y0, t=t))


def _solution(given: Arguments) -> Solution:
    problem, strategy, y = build_problem(given)
    warn_of_adjoint_callbacks(problem, strategy)
    t = given.t
    if problem.options.stop is not None:
        return _up_to_stop(problem, strategy, y, t)
    ys, trajectory, failure = _run(problem, strategy, y, t if given.event_fn is None else t[:1])
    event_t = None
    if given.event_fn is not None:
        event_t, ys = through_event_time(trajectory, ys)
        event_t = event_t.to(dtype=t.dtype, device=t.device)
        t = torch.cat([t[:1], event_t.reshape(1)])
    ys = ys if problem.layout.is_identity else problem.layout.unpack_outputs(ys)
    make_grid = partial(_grid, trajectory.make_grid, problem.repeated)
    return Solution(ys, t, trajectory.stats, event_t, failure, _make_grid=make_grid)


def _grid(make_grid: Callable[[], Grid], repeated: RepeatedTimes | None) -> Grid:
    return make_grid() if repeated is None else repeated.expand_grid(make_grid())


def _up_to_stop(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> Solution:
    """Solve until `stop` returns True; with a gradient, solve once more over the steps up to there."""
    with torch.no_grad():
        ys, found, failure = _run(problem, strategy, y0, t)
    stopped_y, trajectory = found.stopped_y, found
    if torch.is_grad_enabled() or transforming():
        solved = problem.up_to_stop(found)
        reached = len(found.output_step)
        entries = reached if problem.repeated is None else sum(g < reached for g in problem.repeated.group)
        times = t.to(dtype=torch.float64, device="cpu")[:entries]
        if len(solved.times) > reached:
            times = torch.cat([times, torch.tensor(solved.times[-1:], dtype=torch.float64, device="cpu")])
        rows, trajectory = run(solved, strategy, y0, times)
        stopped_y = None if stopped_y is None else rows[-1]
        ys = torch.cat([rows[:entries], torch.full_like(ys[entries:], torch.nan)])
        trajectory.stats.f_calls_forward += found.stats.f_calls_forward
        trajectory.stats.rejected = found.stats.rejected
        trajectory.stats.stiff_at = found.stats.stiff_at
    layout = problem.layout
    return Solution(
        ys if layout.is_identity else layout.unpack_outputs(ys),
        t,
        trajectory.stats,
        failure=failure,
        stopped_t=None if stopped_y is None else found.plans[-1].t_end,
        stopped_y=None if stopped_y is None else layout.unpack_plain(stopped_y),
        _make_grid=partial(_grid, found.make_grid, problem.repeated),
    )


def _run(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> tuple[Tensor, Trajectory, SolverError | None]:
    """Return ys, the trajectory, and with on_failure="return" the error that ended the solve early."""
    try:
        return *run(problem, strategy, y0, t), None
    except StoppedEarly as stopped:
        failure = _with_state(stopped.failure, problem.layout)
        return *run(stopped.solved, strategy, y0, t), failure
    except SolverError as error:
        _with_state(error, problem.layout)
        raise


def _with_state(error: SolverError, layout: Layout) -> SolverError:
    """Return the error with its state in y0's structure."""
    if error.state is not None:
        error.state = layout.unpack_plain(error.state)
    return error
