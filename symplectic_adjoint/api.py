"""The public calls: check everything that can be checked before func is called, then solve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint.arguments import Arguments, SolveKeywords, build_problem, refuse_adjoint_callbacks
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import SolverError
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.gradients import DEFAULT_GRADIENT
from symplectic_adjoint.solve.event_time import through_event_time
from symplectic_adjoint.solve.grid import Grid
from symplectic_adjoint.solve.problem import Problem, StoppedEarly
from symplectic_adjoint.solve.stats import Stats
from symplectic_adjoint.solve.trajectory import Trajectory


@dataclass(frozen=True)
class Solution:
    """A finished solve.

    ys: outputs in y0's structure, each part of shape (len(t), *part.shape), differentiable. t: the output times as
    given; with an event, its start and the event's time. grid: the steps as taken. stats: its counts; those
    of the backward pass are added when it runs. event_t: the time of the event, a differentiable 0-dim tensor, None
    without event_fn. failure: with on_failure="return", the error that ended the solve early; ys is NaN beyond.
    """

    ys: Any
    t: Tensor
    stats: Stats
    event_t: Tensor | None = None
    failure: SolverError | None = None
    _make_grid: Callable[[], Grid] = field(kw_only=True, repr=False)

    @cached_property
    def grid(self) -> Grid:
        """Made when it is first asked for: a short solve takes no longer than this."""
        return self._make_grid()


def odeint(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    gradient: str | Strategy = DEFAULT_GRADIENT,
    params: Sequence[Tensor] | None = None,
    memory_budget: Any = None,
    compile: bool = False,
    accumulate: str | None = None,
    on_failure: str = "raise",
) -> Any:
    """Solves dy/dt = func(t, y), y(t[0]) = y0, and returns y at every t: shape (len(t), *y0.shape).

    Differentiable in y0, t, func's parameters and `params`; `gradient` says how.

    func: called as func(t, y) with t a 0-dim tensor of y's real dtype; returns what is like y. A module's own
        parameters are found; tensors that func uses otherwise go in `params`.
    y0: floating point or complex tensor of any shape, or a tuple, list, dict or nest of them.
    t: 1-D floating point tensor, strictly increasing or decreasing; times are kept in float64.
    rtol, atol: tolerances of a step: its error is at most atol + rtol |y| in the root mean square. Numbers, tensors
        that broadcast to y0, or y0's structure of those. Fixed grids ignore them.
    method: a name in METHODS, "dopri5" by default.
    options: how to step; docs/coming-from-torchdiffeq.md lists them. Unknown ones raise.
    event_fn: called as event_fn(t, y); the first of its components to change sign ends the solve. Returns
        (event_t, ys) then, ys at t[0] and at the event, both differentiable through the time of the event; t has
        two entries, of which t[1] says the direction of time only.
    gradient: a name in GRADIENTS or one of their objects, or "auto".
    accumulate: how lam and dL/dtheta are summed over the steps: None in their own precision, "float64" in that, or
        "compensated", as accurate without it. For long solves in float32; symplectic, stages, revolve, auto and aca.
    compile: whether func and its VJP are compiled, by torch.compile; kept from solve to solve, whatever the step
        sizes. Needs a C++ compiler and a func of tensor operations alone; symplectic, stages and revolve only.
    memory_budget: with gradient="auto", the bytes that the solve and its gradient may have live at once, such as "2
        GiB" or a number: what fits of graphs, stages and states is held, and as little as can be computed twice.
    on_failure: "raise", or "return" for ys as far as the solve came and NaN beyond.

    Raises ValueError or TypeError for arguments that cannot be used, before func is called;
    SolverError where the solve fails: NonFiniteError, StepSizeUnderflow, TooManySteps, EventNotFound; LostGradient
    where func uses a tensor whose gradient would be lost; BudgetTooSmall with the least memory_budget that would do;
    CompilerNotFound for compile=True without a C++ compiler.
    """
    given = Arguments(
        func=func, y0=y0, t=t,
        rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn, gradient=gradient, params=params,
        memory_budget=memory_budget, compile=compile, accumulate=accumulate, on_failure=on_failure,
    )  # fmt: skip
    solution = _solution(given)
    return solution.ys if event_fn is None else (solution.event_t, solution.ys)


def solve(func: Callable[..., Any], y0: Any, t: Tensor, **keywords: Unpack[SolveKeywords]) -> Solution:
    """Solve as odeint does, with its keywords, and return the recorded steps and the counts too: see Solution."""
    return _solution(Arguments.of("solve", keywords, accepted=SolveKeywords, func=func, y0=y0, t=t))


def _solution(given: Arguments) -> Solution:
    problem, strategy, y = build_problem(given)
    refuse_adjoint_callbacks(problem, strategy)
    t = given.t
    ys, trajectory, failure = _run(problem, strategy, y, t if given.event_fn is None else t[:1])
    event_t = None
    if given.event_fn is not None:
        event_t, ys = through_event_time(trajectory, ys)
        event_t = event_t.to(dtype=t.dtype, device=t.device)
        t = torch.cat([t[:1], event_t.reshape(1)])
    ys = ys if problem.layout.is_identity else problem.layout.unpack_outputs(ys)
    return Solution(ys, t, trajectory.stats, event_t, failure, _make_grid=trajectory.make_grid)


def _run(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> tuple[Tensor, Trajectory, SolverError | None]:
    """ys and how the solve went; with on_failure="return", as far as it came, and what stopped it."""
    try:
        return *run(problem, strategy, y0, t), None
    except StoppedEarly as stopped:
        failure = _with_state(stopped.failure, problem.layout)
        return *run(stopped.solved, strategy, y0, t), failure
    except SolverError as error:
        _with_state(error, problem.layout)
        raise


def _with_state(error: SolverError, layout: Layout) -> SolverError:
    """The error, with its state like y0."""
    if error.state is not None:
        error.state = layout.unpack(error.state)
    return error
