"""Reading `options`: every entry is used, or refused by name."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.control import StepControl, rms_norm
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.tableau import ButcherTableau, hermite, linear

GRID_OPTIONS = ("step_size", "grid_points", "grid_constructor")
CONTROL_OPTIONS = (
    "first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "norm", "controller"
)  # fmt: skip
COMMON_OPTIONS = ("outputs", "interp", "max_num_steps", "dtype")
KNOWN_OPTIONS = (*GRID_OPTIONS, *CONTROL_OPTIONS, *COMMON_OPTIONS)


@dataclass(frozen=True)
class Options:
    """How to step. Exactly one of: control (adaptive), step_size, points, or none of them (the grid is t)."""

    control: StepControl | None
    step_size: float | None
    points: tuple[float, ...] | None
    land: bool
    max_num_steps: int


def read_options(
    given: Mapping[str, Any] | None,
    tableau: ButcherTableau,
    rtol: float,
    atol: float,
    times: Sequence[float],
    make_grid: Callable[[Callable[..., Any]], Any],
) -> tuple[Options, ButcherTableau]:
    """Checks `options` and returns them with the tableau that they lead to (`interp` replaces its interpolant).

    make_grid calls a grid_constructor with (func, y0, t). Raises ValueError or TypeError naming the
    option, UnsupportedCombination where two of them exclude each other.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"options must be a mapping of names to values, got {type(given).__name__}")
    options = dict(given or {})
    for name in options:
        if name not in KNOWN_OPTIONS:
            near = difflib.get_close_matches(name, KNOWN_OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown option {name!r}: {hint}options are {', '.join(KNOWN_OPTIONS)}")
    _refuse_other_time_dtype(options.pop("dtype", torch.float64))
    grids = [name for name in GRID_OPTIONS if name in options]
    if len(grids) > 1:
        raise UnsupportedCombination(f"options {grids[0]!r} and {grids[1]!r} both give the grid: keep one")
    adaptive = tableau.adaptive and not grids
    if not adaptive:
        _refuse_control(options, grids[0] if grids else f"method={tableau.name!r}")
    tableau = _with_interpolant(tableau, options.pop("interp", None), adaptive)
    land = _read_outputs(options.get("outputs"), default=adaptive and not tableau.interpolates)
    max_num_steps = options.get("max_num_steps", 2**31 - 1)
    if isinstance(max_num_steps, bool) or not isinstance(max_num_steps, int) or max_num_steps < 1:
        raise ValueError(f"option 'max_num_steps' must be a positive integer, got {max_num_steps!r}")
    return (
        Options(
            control=_read_control(options, rtol, atol, max_num_steps) if adaptive else None,
            step_size=_positive("step_size", options["step_size"]) if "step_size" in options else None,
            points=_read_points(options, times, make_grid),
            land=land,
            max_num_steps=max_num_steps,
        ),
        tableau,
    )


def _refuse_other_time_dtype(dtype: Any) -> None:
    if dtype is not torch.float64:
        raise ValueError(
            f"option 'dtype' (of time) must be torch.float64, got {dtype}: times are kept in float64 on the host "
            "whatever the state's dtype is; func gets t in the state's dtype"
        )


def _refuse_control(options: Mapping[str, Any], reason: str) -> None:
    for name in CONTROL_OPTIONS:
        if name in options:
            raise UnsupportedCombination(
                f"option {name!r} belongs to adaptive step sizes, which {reason} does not use: leave it out, or "
                "take an adaptive method without step_size, grid_points or grid_constructor"
            )


def _with_interpolant(tableau: ButcherTableau, interp: Any, adaptive: bool) -> ButcherTableau:
    if interp is None:
        return tableau
    if adaptive:
        raise UnsupportedCombination(
            "option 'interp' belongs to fixed grids; adaptive methods use their own dense output"
        )
    if interp == "linear":
        return replace(tableau, interpolant=linear(tableau.b))
    if interp == "cubic":
        return replace(tableau, interpolant=hermite(tableau.b, tableau.A, tableau.c, order=min(3, tableau.order)))
    raise ValueError(f"option 'interp' must be 'linear' or 'cubic', got {interp!r}")


def _read_outputs(outputs: Any, default: bool) -> bool:
    if outputs not in (None, "land", "interpolate"):
        raise ValueError(f"option 'outputs' must be 'interpolate' or 'land', got {outputs!r}")
    return default if outputs is None else outputs == "land"


def _read_control(options: Mapping[str, Any], rtol: float, atol: float, max_num_steps: int) -> StepControl:
    control = StepControl(
        rtol=rtol,
        atol=atol,
        norm=options.get("norm", rms_norm),
        first_step=None if options.get("first_step") is None else _positive("first_step", options["first_step"]),
        min_step=_positive("min_step", options.get("min_step", 0.0), or_zero=True),
        max_step=_positive("max_step", options.get("max_step", math.inf), or_infinite=True),
        safety=_positive("safety", options.get("safety", 0.9)),
        ifactor=_positive("ifactor", options.get("ifactor", 10.0)),
        dfactor=_positive("dfactor", options.get("dfactor", 0.2)),
        controller=options.get("controller", "I"),
        max_num_steps=max_num_steps,
    )
    if not callable(control.norm):
        raise TypeError(f"option 'norm' must be a function of a tensor, got {control.norm!r}")
    if control.controller not in ("I", "PI"):
        raise ValueError(f"option 'controller' must be 'I' or 'PI', got {control.controller!r}")
    if control.max_step < control.min_step:
        raise ValueError(f"option 'max_step' is {control.max_step:g}, below min_step = {control.min_step:g}")
    for name, value, low, high in (
        ("safety", control.safety, 0.0, 1.0),
        ("dfactor", control.dfactor, 0.0, 1.0),
        ("ifactor", control.ifactor, 1.0, math.inf),
    ):
        if not low < value < high:
            raise ValueError(f"option {name!r} must lie between {low:g} and {high:g}, got {value:g}")
    return control


def _positive(name: str, value: Any, *, or_zero: bool = False, or_infinite: bool = False) -> float:
    """A size in the units of t (step sizes are magnitudes, whichever way time runs), as a float."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"option {name!r} requires a gradient, which no step size passes on: give {name}.item()")
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"option {name!r} must be a number, got {value!r}")
    value = float(value)
    in_range = value > 0.0 or (or_zero and value == 0.0)
    if not in_range or math.isnan(value) or (math.isinf(value) and not or_infinite):
        raise ValueError(
            f"option {name!r} must be a positive number (a magnitude, for either direction), got {value:g}"
        )
    return value


def _read_points(
    options: Mapping[str, Any], times: Sequence[float], make_grid: Callable[[Callable[..., Any]], Any]
) -> tuple[float, ...] | None:
    name = next((name for name in ("grid_points", "grid_constructor") if name in options), None)
    if name is None:
        return None
    raw = options[name] if name == "grid_points" else make_grid(options[name])
    if isinstance(raw, Tensor) and raw.requires_grad:
        raise ValueError(
            f"option {name!r} gives points that require a gradient: they are constants here, detach() them"
        )
    points = tuple(torch.as_tensor(raw, dtype=torch.float64).cpu().flatten().tolist())
    if len(points) < 2 or points[0] != times[0] or points[-1] != times[-1]:
        raise ValueError(
            f"option {name!r} must start at t[0] = {times[0]:g} and end at t[-1] = {times[-1]:g}, "
            f"got {len(points)} points" + (f" from {points[0]:g} to {points[-1]:g}" if points else "")
        )
    increasing = times[-1] > times[0]
    for a, b in pairwise(points):
        if not (b > a if increasing else b < a):
            raise ValueError(f"option {name!r} must run strictly from t[0] to t[-1], got {a:g} then {b:g}")
    return points
