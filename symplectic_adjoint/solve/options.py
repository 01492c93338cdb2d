"""The `options` of a solve: every entry is used, or refused by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.errors import (
    IgnoredArgumentWarning,
    StepControlOffWarning,
    UnsupportedCombination,
    did_you_mean,
    warn_once,
)
from symplectic_adjoint.field.host_reads import require_readable
from symplectic_adjoint.field.stage_solver import LINEAR_SOLVERS, Linear
from symplectic_adjoint.methods.interpolant import hermite, linear
from symplectic_adjoint.methods.lookup import FIXED_IN_TORCHDIFFEQ
from symplectic_adjoint.methods.registry import METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.step_control import Norm, StepControl, rms_norm

GRID_OPTIONS = ("step_size", "grid_points", "grid_constructor")
CONTROL_OPTIONS = (
    "first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "norm", "controller"
)  # fmt: skip
COMMON_OPTIONS = ("outputs", "interp", "perturb", "jump_t", "step_t", "max_num_steps", "dtype", "stop")
STAGE_OPTIONS = ("linear", "preconditioner")
MAX_EVENT_STEPS = 100_000
"""The default number of steps to try before the search for an event is given up."""
KNOWN_OPTIONS = (*GRID_OPTIONS, *CONTROL_OPTIONS, *COMMON_OPTIONS, *STAGE_OPTIONS)
NAMES_ELSEWHERE = {
    "h": "step_size",
    "dt": "step_size",
    "dt0": "first_step",
    "h0": "first_step",
    "initial_step": "first_step",
    "dtmin": "min_step",
    "hmin": "min_step",
    "dtmax": "max_step",
    "hmax": "max_step",
    "factormax": "ifactor",
    "factormin": "dfactor",
    "interpolation": "interp",
    "max_steps": "max_num_steps",
    "max_num_iters": "max_num_steps",
    "mxstep": "max_num_steps",
    "tstops": "step_t",
}
"""Names that other libraries use, each with the option's name here."""
FOREIGN_OPTIONS = {
    "max_order": "torchdiffeq's Adams methods",
    "max_iters": "torchdiffeq's implicit methods",
    "solver": "torchdiffeq's scipy_solver",
    "implicit": "torchdiffeq's Adams methods",
}
"""Options that belong to methods that only torchdiffeq has, which ignores them with any other method."""
FIXED_GRIDS = {
    "interp": "fixed grids, and adaptive methods use their own dense output",
    "perturb": "fixed grids, and for adaptive steps 'jump_t' names the times where func jumps",
}
"""Options that torchdiffeq ignores with adaptive steps."""


@dataclass(frozen=True)
class Options:
    """How to step. At most one of control (adaptive), step_size and points is given; without any, the grid is t.

    land: whether steps end on outputs. stops: other times at which a step must end. jumps: the stops where func jumps.
    perturb: treat both ends of every step as jumps.
    """

    control: StepControl | None
    step_size: float | None
    points: tuple[float, ...] | None
    land: bool
    stops: frozenset[float]
    jumps: frozenset[float]
    perturb: bool
    max_num_steps: int
    max_event_steps: int
    """The number of steps to try before the search for an event is given up."""
    linear: Linear = "auto"
    """How an implicit method solves linear systems."""
    preconditioner: Any = None
    """For linear="gmres": see StageSolver."""
    stop: Callable[[Tensor, Any], Any] | None = None
    """Called as stop(t, y) after each accepted step; the solve ends where it returns True."""


def read_options(
    given: Mapping[str, Any] | None,
    tableau: ButcherTableau,
    rtol: float | Tensor,
    atol: float | Tensor,
    times: Sequence[float],
    make_grid: Callable[[Callable[..., Any]], Any],
    norm_of: Callable[[Norm | None], Norm] = lambda norm: norm or rms_norm,
    time_dtype: torch.dtype = torch.float64,
) -> tuple[Options, ButcherTableau]:
    """Check `options`; return them with the tableau to use, in which `interp` replaces the interpolant.

    make_grid calls a grid_constructor with (func, y0, t). norm_of turns the user's norm, or None, into a norm of the
    packed state. time_dtype: the coarsest dtype of a time. Raises ValueError or TypeError naming the option, or
    UnsupportedCombination if two options exclude each other.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"options must be a mapping of names to values, got {type(given).__name__}")
    options = {name: value for name, value in (given or {}).items() if name != "grid_constructor" or value is not None}
    _check_names(options, tableau)
    _refuse_other_time_dtype(options.pop("dtype", torch.float64))
    grids = [name for name in GRID_OPTIONS if name in options]
    if len(grids) > 1:
        raise UnsupportedCombination(f"options {grids[0]!r} and {grids[1]!r} both give the grid: keep one")
    adaptive = tableau.adaptive and not grids
    if tableau.adaptive and tableau.name in METHODS:  # a gradient's own method is not torchdiffeq's
        _warn_of_control_off(grids, tableau)
    _check_fit(options, tableau, grids)
    tableau = _with_interpolant(tableau, options.pop("interp", None))
    land = _read_outputs(options.get("outputs"), default=adaptive and not tableau.interpolates)
    max_num_steps = options.get("max_num_steps", 2**31 - 1)
    if isinstance(max_num_steps, bool) or not isinstance(max_num_steps, int) or max_num_steps < 1:
        raise ValueError(f"option 'max_num_steps' must be a positive integer, got {max_num_steps!r}")
    match = _matching(times, time_dtype)
    stops, jumps = (_read_stops(name, options, times, match) for name in ("step_t", "jump_t"))
    return (
        Options(
            control=_read_control(options, rtol, atol, max_num_steps, norm_of) if adaptive else None,
            step_size=_positive("step_size", options["step_size"]) if "step_size" in options else None,
            points=_read_points(options, times, make_grid, match),
            land=land,
            stops=stops | jumps,
            jumps=jumps,
            perturb=_read_perturb(options),
            max_num_steps=max_num_steps,
            max_event_steps=max_num_steps if "max_num_steps" in options else MAX_EVENT_STEPS,
            linear=_read_linear(options, tableau),
            preconditioner=_read_preconditioner(options),
            stop=_read_stop(options),
        ),
        tableau,
    )


def _check_names(options: dict[str, Any], tableau: ButcherTableau) -> None:
    """Remove the options that have no effect with any method here, with a warning; raise for unknown ones."""
    for name in list(options):
        if not isinstance(name, str):
            raise TypeError(f"options must have names as keys, got {name!r}")
        if name in FOREIGN_OPTIONS:
            _ignore(options, name, tableau, FOREIGN_OPTIONS[name])
        elif name not in KNOWN_OPTIONS:
            near = did_you_mean(name, KNOWN_OPTIONS, NAMES_ELSEWHERE)
            raise ValueError(f"unknown option {name!r}{near}: options are {', '.join(KNOWN_OPTIONS)}")


def _check_fit(options: dict[str, Any], tableau: ButcherTableau, grids: Sequence[str]) -> None:
    """Remove, with a warning, the options that torchdiffeq ignores with the method.

    Raises UnsupportedCombination for an option of step size control on a grid that turns the method's own control off.
    """
    if tableau.adaptive and not grids:
        for name, owner in FIXED_GRIDS.items():
            if options.get(name):  # None and False ask for nothing
                _ignore(options, name, tableau, owner)
        return
    for name in [name for name in CONTROL_OPTIONS if name in options]:
        if tableau.adaptive or name == "controller":  # torchdiffeq would use the option, or has no such option
            reason = grids[0] if tableau.adaptive else f"method={tableau.name!r}"
            raise UnsupportedCombination(
                f"option {name!r} belongs to adaptive step sizes, which {reason} does not use: leave it out, or "
                "use an adaptive method without step_size, grid_points or grid_constructor"
            )
        _ignore(options, name, tableau, "methods with adaptive step sizes")


def _ignore(options: dict[str, Any], name: str, tableau: ButcherTableau, owner: str) -> None:
    """Remove an option that has no effect here, as in torchdiffeq, with a warning."""
    warn_once(
        IgnoredArgumentWarning,
        name,
        f"option {name!r} has no effect with method={tableau.name!r}, as in torchdiffeq: it belongs to {owner}; leave "
        "it out",
    )
    del options[name]


def _warn_of_control_off(grids: Sequence[str], tableau: ButcherTableau) -> None:
    """Warn of an option that gives an adaptive method a fixed grid here and is ignored by torchdiffeq."""
    for name in grids:
        if name != "grid_points" and tableau.name not in FIXED_IN_TORCHDIFFEQ:  # which has no such option
            warn_once(
                StepControlOffWarning,
                name,
                f"option {name!r} turns step control off: {tableau.name!r} takes fixed steps, whatever their error, "
                f"where torchdiffeq ignores {name} and stays adaptive: leave {name} out, or give a fixed method such "
                "as 'rk4'",
            )


def _refuse_other_time_dtype(dtype: Any) -> None:
    if dtype is not torch.float64:
        raise ValueError(
            f"option 'dtype' (of time) must be torch.float64, got {dtype}: times are kept in float64 on the host "
            "whatever the state's dtype is; func gets t in the state's dtype"
        )


def _with_interpolant(tableau: ButcherTableau, interp: Any) -> ButcherTableau:
    if interp is None:
        return tableau
    if interp == "linear":
        return replace(tableau, interpolant=linear(tableau.b))
    if interp != "cubic":
        raise ValueError(f"option 'interp' must be 'linear' or 'cubic', got {interp!r}")
    if tableau.extended_diagonal[0]:
        raise UnsupportedCombination(f"'interp' is 'cubic', but {tableau.name!r} lacks f at a step's start: omit it")
    return replace(tableau, interpolant=hermite(tableau.b, tableau.A, tableau.c, order=min(3, tableau.order)))


def _read_outputs(outputs: Any, default: bool) -> bool:
    if outputs not in (None, "land", "interpolate"):
        raise ValueError(f"option 'outputs' must be 'interpolate' or 'land', got {outputs!r}")
    return default if outputs is None else outputs == "land"


def _matching(times: Sequence[float], dtype: torch.dtype) -> Callable[[float], float]:
    """Return a function that maps a time to the entry of times that it equals in dtype, if any, else to itself.

    So 0.7 matches the 0.7 of a float32 tensor.
    """
    exact = set(times)

    @cache
    def known() -> dict[float, float]:
        rounded = torch.tensor(times, dtype=torch.float64, device="cpu").to(dtype).double().tolist()
        return dict(zip(rounded, times, strict=True)) if len(set(rounded)) == len(times) else {}

    def rounded_like_them(x: float) -> float:
        return torch.tensor(x, dtype=torch.float64, device="cpu").to(dtype).item()

    return lambda x: x if x in exact else known().get(rounded_like_them(x), x)


def _read_stops(
    name: str, options: Mapping[str, Any], times: Sequence[float], match: Callable[[float], float]
) -> frozenset[float]:
    """Return the times of jump_t or step_t that lie within the span of the solve, in float64."""
    raw = options.get(name)
    if raw is None:
        return frozenset()
    stops = _constants(name, raw)
    for stop in stops:
        if not math.isfinite(stop):
            raise ValueError(f"option {name!r} must hold finite times, got {stop}")
    low, high = sorted((times[0], times[-1]))
    return frozenset(stop for stop in map(match, stops) if low <= stop <= high)


def _read_perturb(options: Mapping[str, Any]) -> bool:
    perturb = options.get("perturb", False)
    if not isinstance(perturb, bool):
        raise TypeError(f"option 'perturb' must be True or False, got {perturb!r}")
    return perturb


def _read_linear(options: Mapping[str, Any], tableau: ButcherTableau) -> Linear:
    for name in STAGE_OPTIONS:
        if name in options and not tableau.implicit:
            raise UnsupportedCombination(
                f"option {name!r} belongs to implicit methods, got method={tableau.name!r}: leave it out, or use one "
                "such as 'kvaerno5'"
            )
    linear = options.get("linear", "auto")
    if linear not in LINEAR_SOLVERS:
        raise ValueError(f"option 'linear' must be one of {', '.join(map(repr, LINEAR_SOLVERS))}, got {linear!r}")
    return linear


def _read_preconditioner(options: Mapping[str, Any]) -> Any:
    given = options.get("preconditioner")
    if given is None:
        return None
    if options.get("linear") != "gmres":
        raise UnsupportedCombination("option 'preconditioner' belongs to linear='gmres': give that too")
    functions = given if isinstance(given, tuple) and len(given) == 2 else (given,)
    if not all(map(callable, functions)):
        raise TypeError(
            "option 'preconditioner' must be a function of (t, y, hg, r), or a pair of functions (the second for the "
            f"transposed system), got {given!r}"
        )
    return given


def _read_stop(options: Mapping[str, Any]) -> Callable[[Tensor, Any], Any] | None:
    stop = options.get("stop")
    if not (stop is None or callable(stop)):
        raise TypeError(f"option 'stop' must be a function of (t, y) that returns True or False, got {stop!r}")
    return stop


def _constants(name: str, raw: Any) -> tuple[float, ...]:
    """Return constant times as floats; raise ValueError or TypeError naming the option."""
    many = isinstance(raw, Sequence | set | frozenset) or hasattr(raw, "__array__")  # also NumPy arrays
    entries = [raw] if isinstance(raw, Tensor) else list(raw) if many else None
    for x in entries or ():
        require_readable(f"option {name!r}", x)
    if entries is None or isinstance(raw, str) or any(isinstance(x, complex | str | bool | None) for x in entries):
        raise TypeError(f"option {name!r} must be a tensor or a sequence of times, got {raw!r}")
    if any(isinstance(x, Tensor) and x.is_complex() for x in entries):
        raise TypeError(f"option {name!r} must hold real times, got {raw!r}")
    if any(isinstance(x, Tensor) and x.requires_grad for x in entries):
        raise ValueError(f"option {name!r} gives times that require a gradient: they are constants here, detach() them")
    if isinstance(raw, Tensor):
        return tuple(raw.detach().to(dtype=torch.float64, device="cpu").flatten().tolist())
    return tuple(float(x) for x in entries)


def _read_control(
    options: Mapping[str, Any],
    rtol: float | Tensor,
    atol: float | Tensor,
    max_num_steps: int,
    norm_of: Callable[[Norm | None], Norm],
) -> StepControl:
    norm: Norm | None = options.get("norm")
    if not (norm is None or callable(norm)):
        raise TypeError(f"option 'norm' must be a function of a tensor, got {norm!r}")
    control = StepControl(
        rtol=rtol,
        atol=atol,
        norm=norm_of(norm),
        first_step=None if options.get("first_step") is None else _positive("first_step", options["first_step"]),
        min_step=_positive("min_step", options.get("min_step", 0.0), or_zero=True),
        max_step=_positive("max_step", options.get("max_step", math.inf), or_infinite=True),
        safety=_positive("safety", options.get("safety", 0.9)),
        ifactor=_positive("ifactor", options.get("ifactor", 10.0), or_infinite=True),
        dfactor=_positive("dfactor", options.get("dfactor", 0.2), or_zero=True),
        controller=options.get("controller", "I"),
        max_num_steps=max_num_steps,
    )
    if control.controller not in ("I", "PI"):
        raise ValueError(f"option 'controller' must be 'I' or 'PI', got {control.controller!r}")
    if control.max_step < control.min_step:
        raise ValueError(f"option 'max_step' is {control.max_step:g}, below min_step = {control.min_step:g}")
    for name, value, valid, bounds in (
        ("safety", control.safety, control.safety <= 1.0, "between 0, not included, and 1, included"),
        ("dfactor", control.dfactor, control.dfactor <= 1.0, "between 0 and 1, both included"),
        ("ifactor", control.ifactor, control.ifactor >= 1.0, "between 1 and inf, both included"),
    ):
        if not valid:
            raise ValueError(f"option {name!r} must lie {bounds}, got {value:g}")
    return control


def _positive(name: str, value: Any, *, or_zero: bool = False, or_infinite: bool = False) -> float:
    """Return the value as a float; step sizes are magnitudes in the units of t, for either direction of time."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            f"option {name!r} requires a gradient, which does not flow through step sizes: give {name}.item()"
        )
    require_readable(f"option {name!r}", value)
    if isinstance(value, Tensor) or hasattr(value, "__array__"):  # also NumPy's numbers
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"option {name!r} must be a number, got {value!r}")
    value = float(value)
    in_range = value > 0.0 or (or_zero and value == 0.0)
    if not in_range or math.isnan(value) or (math.isinf(value) and not or_infinite):
        sign = "positive number or zero" if or_zero else "positive number"
        raise ValueError(f"option {name!r} must be a {sign} (a magnitude, for either direction), got {value:g}")
    return value


def _read_points(
    options: Mapping[str, Any],
    times: Sequence[float],
    make_grid: Callable[[Callable[..., Any]], Any],
    match: Callable[[float], float],
) -> tuple[float, ...] | None:
    name = next((name for name in ("grid_points", "grid_constructor") if name in options), None)
    if name is None:
        return None
    points = _constants(name, options[name] if name == "grid_points" else make_grid(options[name]))
    points = tuple(map(match, points))
    points = tuple(p for i, p in enumerate(points) if i == 0 or p != points[i - 1])  # no step of length zero
    if not points or points[0] != times[0] or points[-1] != times[-1]:
        raise ValueError(
            f"option {name!r} must start at t[0] = {times[0]:g} and end at t[-1] = {times[-1]:g}, "
            f"got {len(points)} points" + (f" from {points[0]:g} to {points[-1]:g}" if points else "")
        )
    increasing = times[-1] > times[0]
    for a, b in pairwise(points):
        if not (b > a if increasing else b < a):
            raise ValueError(f"option {name!r} must run strictly from t[0] to t[-1], got {a:g} then {b:g}")
    return points
