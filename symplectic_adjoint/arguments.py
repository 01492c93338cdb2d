"""Checking the arguments of a solve before func is called: what, what was got, what to do instead."""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.backward.running_sum import ACCUMULATIONS
from symplectic_adjoint.backward.strategy import OwnSteps, Strategy
from symplectic_adjoint.errors import NonFiniteError, UnsupportedCombination
from symplectic_adjoint.field.compiled import require_compiler
from symplectic_adjoint.field.finite import first_non_finite
from symplectic_adjoint.field.layout import Layout, parts_of
from symplectic_adjoint.field.transforms import batched, transforming
from symplectic_adjoint.gradients import GRADIENTS
from symplectic_adjoint.gradients.aca import Aca
from symplectic_adjoint.gradients.auto import Auto
from symplectic_adjoint.gradients.backprop import Backprop
from symplectic_adjoint.gradients.mali import Mali
from symplectic_adjoint.gradients.revolve import Revolve
from symplectic_adjoint.gradients.symplectic import Symplectic
from symplectic_adjoint.methods.registry import DEFAULT_METHOD, METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.options import Options
from symplectic_adjoint.steps.leapfrog import NAME as LEAPFROG
from symplectic_adjoint.steps.leapfrog import LeapfrogStep
from symplectic_adjoint.steps.runge_kutta import MakeStep, Step

AUTO = "auto"
"""The gradient that is chosen by memory_budget."""

_ADAMS = "Adams methods are not here: take 'rk4' with options={'step_size': ...}, or 'dopri5'"
_IMPLICIT = "implicit methods are not here: take 'dopri5', or 'bosh3' with loose tolerances for a mildly stiff problem"
FOREIGN_METHODS = {
    "explicit_adams": _ADAMS,
    "implicit_adams": _ADAMS,
    "fixed_adams": _ADAMS,
    "scipy_solver": "SciPy's solvers are not here: for RK45 take 'dopri5', for RK23 'bosh3', for DOP853 'dop853'",
    "implicit_euler": _IMPLICIT,
    "implicit_midpoint": _IMPLICIT,
    "trapezoid": _IMPLICIT,
    "radauIIA3": _IMPLICIT,
    "radauIIA5": _IMPLICIT,
    "gl2": _IMPLICIT,
    "gl4": _IMPLICIT,
    "gl6": _IMPLICIT,
    "sdirk2": _IMPLICIT,
    "trbdf2": _IMPLICIT,
    LEAPFROG: 'asynchronous leapfrog comes with gradient="mali": take that, and leave method out',
}
"""Methods of torchdiffeq's that have no counterpart, and one that is no tableau, and what to use."""


def stepping(method: str | None, strategy: Strategy | Backprop) -> tuple[ButcherTableau, MakeStep]:
    """The method by its name, and the kind of step that this gradient takes with it."""
    make_step = strategy.make_step if isinstance(strategy, OwnSteps) else Step
    if not isinstance(strategy, Mali):
        return named_method(method), make_step
    if method not in (None, LEAPFROG):
        raise UnsupportedCombination(
            f'gradient="mali" solves by asynchronous leapfrog alone, got method={method!r}: leave method out, or take '
            'gradient="reversible", which wraps any method'
        )
    return strategy.tableau, make_step


def stepping_options(options: Options, given: Mapping[str, Any] | None, make_step: MakeStep, name: str) -> Options:
    """The options for this kind of step. Raises UnsupportedCombination for one that it cannot follow."""
    if make_step is Step:
        return options
    if (given or {}).get("outputs") == "interpolate" or (given or {}).get("interp") is not None:
        raise UnsupportedCombination(
            f"gradient={name!r} takes steps of its own, which have no dense output and end on every entry of t: leave "
            "out the options 'outputs' and 'interp'"
        )
    if options.jumps and make_step is LeapfrogStep:
        raise UnsupportedCombination(
            f"option 'jump_t' does not work with gradient={name!r}, whose slope v would be carried over the jump: take "
            'gradient="reversible", or solve up to the jump and go on from there'
        )
    return replace(options, land=True)


def named_method(method: str | None) -> ButcherTableau:
    name = DEFAULT_METHOD if method is None else method
    if isinstance(name, str) and name in FOREIGN_METHODS:
        raise ValueError(f"method {name!r}: {FOREIGN_METHODS[name]}")
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"unknown method {name!r}{_near(name, METHODS)}: methods are {', '.join(METHODS)}")
    return METHODS[name]


def named_gradient(gradient: str | Strategy | Backprop, budget: Any = None) -> tuple[Strategy | Backprop, str]:
    """The strategy and what it is called; budget is memory_budget, which belongs to "auto"."""
    if isinstance(gradient, str) and gradient == AUTO:
        if budget is None:
            raise ValueError('gradient="auto" needs memory_budget, a number of bytes or a text such as "2 GiB"')
        return Auto(budget), AUTO
    if budget is not None:
        raise UnsupportedCombination(
            f'memory_budget={budget!r} belongs to gradient="auto", got gradient={gradient!r}: leave one of the two '
            'out (Revolve("64 MiB") keeps states of that size)'
        )
    if isinstance(gradient, str):
        if gradient not in GRADIENTS:
            names = (*GRADIENTS, AUTO)
            raise ValueError(f"unknown gradient {gradient!r}{_near(gradient, names)}: gradients are {', '.join(names)}")
        return GRADIENTS[gradient], gradient
    if isinstance(gradient, type) or not isinstance(gradient, Strategy | Backprop):
        raise TypeError(f"gradient must be a name in GRADIENTS or one of their objects, got {gradient!r}")
    return gradient, _described(gradient)


def _described(strategy: Strategy | Backprop) -> str:
    """As it was written: "Symplectic(graphs=50)"."""
    assert is_dataclass(strategy)
    values = [(x.name, getattr(strategy, x.name), x.default) for x in fields(strategy)]
    changed = ", ".join(f"{name}={value!r}" for name, value, default in values if value != default)
    return f"{type(strategy).__name__}({changed})"


def checked_accumulate(accumulate: Any, strategy: Strategy | Backprop, gradient_name: str) -> str | None:
    if accumulate is None:
        return None
    if accumulate not in ACCUMULATIONS:
        names = ", ".join(map(repr, ACCUMULATIONS))
        raise ValueError(f"accumulate must be None or one of {names}, got {accumulate!r}")
    if not isinstance(strategy, Symplectic | Revolve | Auto | Aca):
        raise UnsupportedCombination(
            f"accumulate={accumulate!r} belongs to gradients that sum step by step, got gradient={gradient_name!r}: "
            'take "symplectic", "stages", "revolve", "auto" or "aca"'
        )
    if transforming():
        raise UnsupportedCombination(
            f"accumulate={accumulate!r} does not work under torch.func or forward mode, which differentiate the "
            "operations themselves: leave it out, or use torch.autograd"
        )
    return accumulate


def checked_compile(
    compile: Any, strategy: Strategy | Backprop, gradient_name: str, layout: Layout, accumulate: str | None
) -> bool:
    if not isinstance(compile, bool):
        raise TypeError(f"compile must be True or False, got {compile!r}")
    if not compile:
        return False
    if not isinstance(strategy, Symplectic | Revolve):
        raise UnsupportedCombination(
            f'compile=True belongs to "symplectic", "stages" and "revolve", got gradient={gradient_name!r}: take '
            "one of these"
        )
    for found, what in (
        (not layout.trivial, "a structured or half precision state"),
        (layout.dtype.is_complex, "a complex state"),
        (accumulate is not None, f"accumulate={accumulate!r}"),
        (isinstance(strategy, Symplectic) and strategy.graphs > 0, "graphs that are held"),
        (transforming(), "torch.func or forward mode"),
    ):
        if found:
            raise UnsupportedCombination(f"compile=True does not work with {what}: leave it out")
    require_compiler()
    return True


def _near(name: Any, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def checked_layout(y0: Any) -> Layout:
    """The layout of a state all of whose parts can be solved for. Raises TypeError, ValueError or NonFiniteError."""
    named = list(parts_of(y0))
    if not named:
        raise ValueError(f"y0 must have at least one tensor, got {y0!r}")
    for path, part in named:
        if not isinstance(part, Tensor):
            raise TypeError(
                f"y0{path} must be a tensor (or a tuple, list or dict of tensors), got {type(part).__name__}"
            )
        if not (part.is_floating_point() or part.is_complex()) or part.dtype == torch.complex32:
            raise ValueError(
                f"y0{path} must be a floating point or complex tensor, got {part.dtype}: write y0.double() or "
                "y0.float()"
            )
    _, first = named[0]
    for path, part in named:
        if part.is_complex() != first.is_complex():
            raise ValueError(
                f"y0's parts must be all real or all complex, got {first.dtype} in y0{named[0][0]} and {part.dtype} in "
                f"y0{path}: write .to({torch.promote_types(part.dtype, first.dtype)})"
            )
        if part.device != first.device:
            raise ValueError(f"y0's parts must be on one device, got {first.device} and, in y0{path}, {part.device}")
    layout = Layout(y0)
    y = layout.pack(y0).detach()
    if not batched(y) and (index := first_non_finite(y)) is not None:
        place = layout.place(index)
        raise NonFiniteError(f"y0 is not finite: {place} is {y.flatten()[index].item()}", place)
    return layout


def checked_tolerance(name: str, value: Any, layout: Layout, y0: Tensor) -> float | Tensor:
    """A number, or a tensor of tolerances like the packed y0."""
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad:
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_positive(name, value, value)
        return float(value)
    for path, leaf in parts_of(value):
        if isinstance(leaf, bool) or not isinstance(leaf, int | float | Tensor):
            raise TypeError(f"{name}{path} must be a number or a tensor, got {leaf!r}")
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            raise ValueError(f"{name}{path} requires a gradient, which no tolerance passes on: detach() it")
    if not layout.structured and not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a number or a tensor, as y0 is one tensor, got {value!r}")
    if layout.structured and isinstance(value, Tensor):
        raise TypeError(f"{name} must be a number, or have y0's structure: one tolerance for each part")
    packed = layout.pack_tolerance(name, value, y0)
    if packed.numel():
        _check_positive(name, packed.amin().item(), packed.amax().item())
    return packed


def _check_positive(name: str, least: float, most: float) -> None:
    for value in (least, most):
        if not 0.0 < value < math.inf:
            raise ValueError(
                f"{name} must be positive and finite, got {value:g}: steps are accepted up to atol + rtol |y|"
            )


def check_resolution(rtol: float | Tensor, atol: float | Tensor, layout: Layout) -> None:
    """Below some hundredth of a unit in the last place the error estimate is rounding, and steps shrink for nothing."""
    dtype = layout.time_dtype
    info = torch.finfo(dtype)
    for name, value, least in (("rtol", rtol, info.eps / 100), ("atol", atol, info.smallest_normal)):
        if isinstance(value, Tensor):
            value = value.amin().item() if value.numel() else math.inf
        if value < least:
            raise ValueError(
                f"{name} = {value:g} is beyond what y0's {dtype} can resolve: give {name} >= {least:.1g}, or a y0 of "
                "higher precision"
            )


def checked_times(t: Tensor) -> tuple[float, ...]:
    if not isinstance(t, Tensor):
        raise TypeError(f"t must be a tensor of times, got {type(t).__name__}: write torch.tensor([0.0, 1.0])")
    if t.ndim != 1 or len(t) == 0 or not t.is_floating_point():
        raise ValueError(f"t must be a 1-D floating point tensor of times, got shape {tuple(t.shape)}, {t.dtype}")
    if batched(t):
        raise UnsupportedCombination("t must be the same for all samples of a vmap: pass in_dims=None for it")
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
