"""The public calls: check everything that can be checked before func is called, then solve."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.bridge import run
from symplectic_adjoint.errors import NonFiniteError
from symplectic_adjoint.field import Func, collect_parameters
from symplectic_adjoint.finite import first_bad_component
from symplectic_adjoint.gradients import GRADIENTS
from symplectic_adjoint.gradients.backprop import Backprop
from symplectic_adjoint.gradients.base import Strategy
from symplectic_adjoint.grid import Grid
from symplectic_adjoint.methods import METHODS
from symplectic_adjoint.options import read_options
from symplectic_adjoint.problem import Problem, Stats
from symplectic_adjoint.tableau import ButcherTableau

DEFAULT_METHOD = "dopri5"


@dataclass(frozen=True)
class Solution:
    """A finished solve.

    ys: outputs, shape (len(t), *y0.shape), differentiable. t: the output times as given. grid: the steps as
    taken. stats: its counts; those of the backward pass are added when it runs.
    """

    ys: Tensor
    t: Tensor
    grid: Grid
    stats: Stats


def odeint(
    func: Func,
    y0: Tensor,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Any = None,
    gradient: str | Strategy | Backprop = "symplectic",
    params: Sequence[Tensor] | None = None,
    memory_budget: Any = None,
    compile: bool = False,
    accumulate: str | None = None,
    on_failure: str = "raise",
) -> Tensor:
    """Solves dy/dt = func(t, y), y(t[0]) = y0, and returns y at every t: shape (len(t), *y0.shape).

    Differentiable in y0, t, func's parameters and `params`; `gradient` says how.

    func: called as func(t, y) with t a 0-dim tensor of y's dtype; returns a tensor like y. A module's own
        parameters are found; tensors that func uses otherwise go in `params`.
    y0: floating point tensor of any shape.
    t: 1-D floating point tensor, strictly increasing or decreasing; times are kept in float64.
    rtol, atol: tolerances of a step: its error is at most atol + rtol |y| in the root mean square. Fixed
        grids ignore them.
    method: a name in METHODS, "dopri5" by default.
    options: how to step; docs/coming-from-torchdiffeq.md lists them. Unknown ones raise.
    gradient: a name in GRADIENTS or one of their objects.
    event_fn, memory_budget, compile, accumulate, on_failure: not available yet, refused by name.

    Raises ValueError or TypeError for arguments that cannot be used, before func is called;
    SolverError where the solve fails: NonFiniteError, StepSizeUnderflow, TooManySteps; LostGradient where func
    uses a tensor whose gradient would be lost.
    """
    return solve(
        func, y0, t,
        rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn, gradient=gradient, params=params,
        memory_budget=memory_budget, compile=compile, accumulate=accumulate, on_failure=on_failure,
    ).ys  # fmt: skip


def solve(
    func: Func,
    y0: Tensor,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Any = None,
    gradient: str | Strategy | Backprop = "symplectic",
    params: Sequence[Tensor] | None = None,
    memory_budget: Any = None,
    compile: bool = False,
    accumulate: str | None = None,
    on_failure: str = "raise",
) -> Solution:
    """Like odeint, with the grid that was stepped on and what the solve cost: see Solution."""
    _refuse_unavailable(
        event_fn=event_fn, memory_budget=memory_budget, compile=compile or None, accumulate=accumulate,
        on_failure=None if on_failure == "raise" else on_failure,
    )  # fmt: skip
    if not callable(func):
        raise TypeError(f"func must be callable as func(t, y), got {type(func).__name__}")
    tableau = _named_method(method)
    strategy, gradient_name = _named_gradient(gradient)
    rtol, atol = _tolerance("rtol", rtol), _tolerance("atol", atol)
    times = _checked_times(t)
    _check_state(y0)
    read, tableau = read_options(options, tableau, rtol, atol, times, lambda make: make(func, y0, t))
    if read.control is not None:
        _check_resolution(rtol, atol, y0.dtype)
    parameters = collect_parameters(func, params)
    problem = Problem(func, parameters, tableau, times, read, gradient_name)
    ys, trajectory = run(problem, strategy, y0, t)
    return Solution(ys, t, trajectory.grid, trajectory.stats)


def _refuse_unavailable(**keywords: Any) -> None:
    for name, value in keywords.items():
        if value is not None:
            raise NotImplementedError(f"{name}={value!r} is not available yet: leave {name} out")


def _named_method(method: str | None) -> ButcherTableau:
    name = DEFAULT_METHOD if method is None else method
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"unknown method {name!r}{_near(name, METHODS)}: methods are {', '.join(METHODS)}")
    return METHODS[name]


def _named_gradient(gradient: str | Strategy | Backprop) -> tuple[Strategy | Backprop, str]:
    if isinstance(gradient, str):
        if gradient not in GRADIENTS:
            raise ValueError(
                f"unknown gradient {gradient!r}{_near(gradient, GRADIENTS)}: gradients are {', '.join(GRADIENTS)}"
            )
        return GRADIENTS[gradient], gradient
    if isinstance(gradient, type) or not isinstance(gradient, Strategy | Backprop):
        raise TypeError(f"gradient must be a name in GRADIENTS or one of their objects, got {gradient!r}")
    return gradient, repr(gradient)


def _near(name: Any, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _tolerance(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value:g}: steps are accepted up to atol + rtol |y|")
    return float(value)


def _check_resolution(rtol: float, atol: float, dtype: torch.dtype) -> None:
    """Below some hundredth of a unit in the last place the error estimate is rounding, and steps shrink for nothing."""
    info = torch.finfo(dtype)
    for name, value, least in (("rtol", rtol, info.eps / 100), ("atol", atol, info.smallest_normal)):
        if value < least:
            raise ValueError(
                f"{name} = {value:g} is beyond what y0's {dtype} can resolve: give {name} >= {least:.1g}, or a y0 of "
                "higher precision"
            )


def _checked_times(t: Tensor) -> tuple[float, ...]:
    if not isinstance(t, Tensor):
        raise TypeError(f"t must be a tensor of times, got {type(t).__name__}: write torch.tensor([0.0, 1.0])")
    if t.ndim != 1 or len(t) == 0 or not t.is_floating_point():
        raise ValueError(f"t must be a 1-D floating point tensor of times, got shape {tuple(t.shape)}, {t.dtype}")
    times = tuple(t.detach().to(dtype=torch.float64, device="cpu").tolist())
    for j, time in enumerate(times):
        if not math.isfinite(time):
            raise ValueError(f"t[{j}] must be finite, got {time}")
    increasing = times[-1] > times[0]
    for j in range(1, len(times)):
        if not (times[j] > times[j - 1] if increasing else times[j] < times[j - 1]):
            raise ValueError(
                "t must be strictly increasing or strictly decreasing, got "
                f"t[{j - 1}] = {times[j - 1]:.17g} and t[{j}] = {times[j]:.17g}: sort it and leave out repeated times"
            )
    return times


def _check_state(y0: Tensor) -> None:
    if not isinstance(y0, Tensor):
        raise TypeError(f"y0 must be one tensor, got {type(y0).__name__}: concatenate the parts of the state")
    if not y0.is_floating_point():
        raise ValueError(f"y0 must be a floating point tensor, got {y0.dtype}: write y0.double() or y0.float()")
    bad = first_bad_component(y0.detach())
    if bad is not None:
        raise NonFiniteError(f"y0 is not finite: {bad}")
