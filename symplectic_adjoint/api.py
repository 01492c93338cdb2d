"""The public calls: check everything that can be checked before func is called, then solve."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.arguments import (
    check_resolution,
    checked_accumulate,
    checked_compile,
    checked_layout,
    checked_times,
    checked_tolerance,
    named_gradient,
    stepping,
    stepping_options,
)
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import SolverError, UnsupportedCombination
from symplectic_adjoint.field.layout import Layout, PackedFunc
from symplectic_adjoint.field.parameters import alone, collect_parameters
from symplectic_adjoint.field.transforms import batched, transforming
from symplectic_adjoint.gradients.backprop import Backprop
from symplectic_adjoint.gradients.continuous import Continuous
from symplectic_adjoint.solve.callbacks import Callbacks
from symplectic_adjoint.solve.event_time import through_event_time
from symplectic_adjoint.solve.grid import Grid
from symplectic_adjoint.solve.options import read_options
from symplectic_adjoint.solve.problem import Problem, Stats, Trajectory
from symplectic_adjoint.solve.step_control import packed_norm


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
    gradient: str | Strategy | Backprop = "symplectic",
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
    solution = solve(
        func, y0, t,
        rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn, gradient=gradient, params=params,
        memory_budget=memory_budget, compile=compile, accumulate=accumulate, on_failure=on_failure,
    )  # fmt: skip
    return solution.ys if event_fn is None else (solution.event_t, solution.ys)


def solve(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    gradient: str | Strategy | Backprop = "symplectic",
    params: Sequence[Tensor] | None = None,
    memory_budget: Any = None,
    compile: bool = False,
    accumulate: str | None = None,
    on_failure: str = "raise",
) -> Solution:
    """Like odeint, with the grid that was stepped on and what the solve cost: see Solution."""
    if on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure must be 'raise' or 'return', got {on_failure!r}")
    strategy, gradient_name = named_gradient(gradient, memory_budget)
    with alone(func):
        problem, y = pose(func, y0, t, rtol, atol, method, options, event_fn, strategy, gradient_name, params)
        problem = replace(
            problem,
            accumulate=checked_accumulate(accumulate, strategy, gradient_name),
            compile=checked_compile(compile, strategy, gradient_name, problem.layout, accumulate),
        )
        _refuse_adjoint_callbacks(problem, strategy)
        ys, trajectory, failure = _run(problem, strategy, y, t if event_fn is None else t[:1], on_failure)
    event_t = None
    if event_fn is not None:
        event_t, ys = through_event_time(trajectory, ys)
        event_t = event_t.to(dtype=t.dtype, device=t.device)
        t = torch.cat([t[:1], event_t.reshape(1)])
    ys = ys if problem.layout.trivial else problem.layout.unpack_outputs(ys)
    return Solution(ys, t, trajectory.stats, event_t, failure, _make_grid=trajectory.make_grid)


def _run(
    problem: Problem, strategy: Strategy | Backprop, y0: Tensor, t: Tensor, on_failure: str
) -> tuple[Tensor, Trajectory, SolverError | None]:
    try:
        return *run(problem, strategy, y0, t), None
    except SolverError as error:
        if error.state is not None:
            error.state = problem.layout.unpack(error.state)
        if on_failure == "raise" or error.t is None:
            raise
        return *run(problem.as_far_as(error), strategy, y0, t), error


def pose(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str | None,
    options: Mapping[str, Any] | None,
    event_fn: Callable[..., Tensor] | None,
    strategy: Strategy | Backprop,
    gradient_name: str,
    params: Sequence[Tensor] | None,
) -> tuple[Problem, Tensor]:
    """The problem that the arguments of odeint pose, all of them checked, and y0 as one tensor."""
    if not callable(func):
        raise TypeError(f"func must be callable as func(t, y), got {type(func).__name__}")
    tableau, make_step = stepping(method, strategy)
    times = checked_times(t)
    layout = checked_layout(y0)
    y = layout.pack(y0)
    if event_fn is not None:
        times = _event_times(event_fn, times)
        if transforming():
            raise UnsupportedCombination("event_fn does not work under torch.func or forward mode: use torch.autograd")
    tolerances = checked_tolerance("rtol", rtol, layout, y), checked_tolerance("atol", atol, layout, y)
    parameters = collect_parameters(func, params)
    norm_of = partial(packed_norm, layout)
    coarsest = max((layout.time_dtype, t.dtype), key=lambda dtype: torch.finfo(dtype).eps)
    make_grid = lambda make: make(func, y0, t)  # noqa: E731
    read, tableau = read_options(options, tableau, *tolerances, times, make_grid, norm_of, coarsest)
    read = stepping_options(read, options, make_step, gradient_name)
    if read.control is not None:
        check_resolution(*tolerances, layout)
        if batched(y) or any(map(batched, (*parameters.trainable, *parameters.frozen))):
            raise UnsupportedCombination(
                "vmap needs a fixed grid, as samples may not take different decisions: give step_size in options, or "
                "a y0 with a batch dimension instead of vmap"
            )
    elif event_fn is not None and read.step_size is None:
        raise UnsupportedCombination("event_fn with fixed steps needs their size: give step_size in options")
    problem = Problem(
        func=func if layout.trivial else PackedFunc(func, layout),
        parameters=parameters,
        tableau=tableau,
        times=times,
        options=read,
        gradient_name=gradient_name,
        make_step=make_step,
        layout=layout,
        caller=func,
        event=None if event_fn is None else _packed_event(event_fn, layout),
    )
    return problem, y


def _refuse_adjoint_callbacks(problem: Problem, strategy: Strategy | Backprop) -> None:
    names = Callbacks(problem.caller, problem.layout.unpack, "_adjoint").names
    if names and not isinstance(strategy, Continuous):
        raise UnsupportedCombination(
            f"func has {', '.join(names)}, which belong to a second solve that gradient={problem.gradient_name!r} does "
            'not make: remove them, or take gradient="continuous"'
        )


def _event_times(event_fn: Any, times: tuple[float, ...]) -> tuple[float, float]:
    if not callable(event_fn):
        raise TypeError(f"event_fn must be callable as event_fn(t, y), got {type(event_fn).__name__}")
    if len(times) != 2:
        raise ValueError(f"with event_fn t must have two entries, the start and any later time, got {len(times)}")
    return times[0], math.copysign(math.inf, times[1] - times[0])


def _packed_event(event_fn: Callable[..., Tensor], layout: Layout) -> Callable[[Tensor, Tensor], Tensor]:
    return event_fn if layout.trivial else lambda t, y: event_fn(t, layout.unpack(y))
