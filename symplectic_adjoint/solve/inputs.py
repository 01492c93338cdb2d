"""y0, t, tolerances and events, checked before func is called: what, what was got, what to do instead."""

import math
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import is_fake, is_jit_tracing, records_operations
from symplectic_adjoint.errors import NonFiniteError, ResolutionWarning, UnsupportedCombination, told_apart, warn_once
from symplectic_adjoint.field.finite import first_non_finite
from symplectic_adjoint.field.host_reads import is_capturing, require_readable
from symplectic_adjoint.field.layout import Layout, parts_of
from symplectic_adjoint.field.subclasses import plain
from symplectic_adjoint.field.transforms import batched, transforming


def require_values(y0: Any, t: Any) -> None:
    """Raise UnsupportedCombination while torch records operations, or if y0 or t has no values.

    A record would repeat the steps of the values that it was made with, whatever it is given.
    """
    why = "the steps of a solve depend on the values of y0 and t"
    if is_jit_tracing():
        raise UnsupportedCombination(f"torch.jit.trace cannot record a solve, because {why}: trace func alone")
    if records_operations():
        raise UnsupportedCombination(
            f"torch.export, make_fx and FakeTensorMode cannot record a solve, because {why}: export func alone"
        )
    for name, x in (*((f"y0{path}", part) for path, part in parts_of(y0)), ("t", t)):
        if isinstance(x, Tensor) and (x.is_meta or is_fake(x)):
            raise UnsupportedCombination(
                f"{name} is a {'meta' if x.is_meta else 'fake'} tensor, which has no values, and {why}: give real "
                "tensors, on the CPU for example"
            )


def savable(x: Any) -> Any:
    """Return x, or a copy of a tensor from inference mode that autograd may have to save now, and could not."""
    if isinstance(x, Tensor) and torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and x.is_inference():
        return x.clone()
    return x


def checked_layout(y0: Any) -> Layout:
    """Return the layout of y0; raise TypeError or ValueError if it is not a valid state."""
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
    return Layout(y0)


def non_finite_start(layout: Layout, y0: Tensor) -> NonFiniteError | None:
    """Return the error that names the place where the packed y0 is not finite; None if it is finite."""
    y0 = y0.detach()
    index = first_non_finite(y0)
    if index is None:
        return None
    place = layout.place(index)
    return NonFiniteError(f"y0 is not finite: {place} is {y0.flatten()[index].item()}", place)


def plain_tolerance(value: Any) -> Any:
    """Return a tolerance with its numbers of any kind as floats and its arrays as tensors; else as it is."""
    if isinstance(value, dict):
        return {key: plain_tolerance(x) for key, x in value.items()}
    if isinstance(value, tuple | list):
        return [plain_tolerance(x) for x in value]
    if isinstance(value, Tensor):
        return plain_tolerance(value.item()) if value.ndim == 0 and not value.requires_grad else value
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):  # NumPy's numbers too
        return float(value)
    if hasattr(value, "__array__"):
        try:
            return plain_tolerance(torch.as_tensor(value, device="cpu"))
        except TypeError:  # an array of objects
            return value
    return value


def checked_tolerance(name: str, value: Any, layout: Layout, y0: Tensor) -> float | Tensor:
    """Return the tolerance as a number or as a tensor like the packed y0; raise TypeError or ValueError if invalid."""
    for path, leaf in parts_of(value):
        require_readable(f"{name}{path}", leaf)
    value = plain_tolerance(value)
    if isinstance(value, float):
        _check_positive(name, value, value)
        return value
    for path, leaf in parts_of(value):
        if not (_is_real(leaf) if isinstance(leaf, Tensor) else isinstance(leaf, float)):
            raise TypeError(f"{name}{path} must be a number or a tensor, got {leaf!r}")
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            raise ValueError(f"{name}{path} requires a gradient, and tolerances have none: detach() it")
    if layout.structured and isinstance(value, Tensor):
        value = list(value.unbind())
    if not layout.structured and not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value, dtype=y0.dtype.to_real(), device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"{name} must be a number, a tensor or a list of numbers, as y0 is one tensor, got {value!r}"
            ) from None
    packed = layout.pack_tolerance(name, value, y0)
    if packed.numel() and not is_capturing(packed.device):  # a capture has fixed steps, which use no tolerance
        _check_positive(name, *torch.stack(packed.aminmax()).tolist())
    return packed


def _is_real(x: Tensor) -> bool:
    return x.dtype != torch.bool and not x.is_complex()


def _check_positive(name: str, least: float, most: float) -> None:
    for value in (least, most):
        if not 0.0 <= value < math.inf:
            raise ValueError(
                f"{name} must be at least 0 and finite, got {value:g}: a step is accepted if its error is at most "
                "atol + rtol |y|"
            )


def resolved_tolerances(
    rtol: float | Tensor, atol: float | Tensor, layout: Layout
) -> tuple[float | Tensor, float | Tensor]:
    """Return the tolerances, each raised with a warning to the least that y0's dtype resolves.

    Below about a hundredth of a unit in the last place the error estimate is rounding error. Shorter steps do not make
    the solution more accurate there, and a solve of such steps may not end.
    """
    info = torch.finfo(layout.time_dtype)
    return (
        _resolved("rtol", rtol, info.eps / 100, info),
        _resolved("atol", atol, info.smallest_normal, info),
    )


def _resolved(name: str, value: float | Tensor, least: float, info: torch.finfo) -> float | Tensor:
    if isinstance(value, Tensor) and not value.numel():
        return value
    smallest = value.amin().item() if isinstance(value, Tensor) else value
    if smallest >= least:
        return value
    warn_once(
        ResolutionWarning,
        name,
        f"{name} = {smallest:.3g} is below what {info.dtype} resolves, {least:.3g}: steps are controlled to "
        f"{name} = {least:.3g}; give that or more, or a y0 of higher precision",
    )
    return value.clamp(min=least) if isinstance(value, Tensor) else least


def checked_times(t: Tensor) -> tuple[float, ...]:
    """Return the output times as float64 numbers, with repetitions; raise TypeError or ValueError if invalid."""
    if not isinstance(t, Tensor):
        raise TypeError(f"t must be a tensor of times, got {type(t).__name__}: write torch.tensor([0.0, 1.0])")
    if t.ndim != 1 or len(t) == 0 or not t.is_floating_point():
        raise ValueError(f"t must be a 1-D floating point tensor of times, got shape {tuple(t.shape)}, {t.dtype}")
    if batched(t):
        raise UnsupportedCombination("t must be the same for all samples of a vmap: pass in_dims=None for it")
    require_readable("t", t)
    times = tuple(t.tolist())
    for j, time in enumerate(times):
        if not math.isfinite(time):
            raise ValueError(f"t[{j}] must be finite, got {time}")
    increasing = next((b > a for a, b in pairwise(times) if a != b), True)
    for j in range(1, len(times)):
        if not (times[j] >= times[j - 1] if increasing else times[j] <= times[j - 1]):
            first, before, here = told_apart(times[0], times[j - 1], times[j])
            raise ValueError(
                f"t must be increasing or decreasing throughout (times may repeat), got {first} first, then "
                f"t[{j - 1}] = {before} and t[{j}] = {here}: sort the times"
            )
    return times


def checked_event_times(event_fn: Any, times: tuple[float, ...]) -> tuple[float, float]:
    """Return the start and an infinite end in the direction of t, for a solve that an event ends."""
    if not callable(event_fn):
        raise TypeError(f"event_fn must be callable as event_fn(t, y), got {type(event_fn).__name__}")
    if len(times) != 2:
        raise ValueError(f"with event_fn t must have two entries, the start and any later time, got {len(times)}")
    if times[0] == times[1]:
        raise ValueError(
            f"with event_fn t[1] gives the direction of time, got t[0] = t[1] = {times[0]:g}: give any later time "
            "there, or an earlier one to search backwards"
        )
    if transforming():
        raise UnsupportedCombination("event_fn does not work under torch.func or forward mode: use torch.autograd")
    return times[0], math.copysign(math.inf, times[1] - times[0])


def packed_event(event_fn: Callable[..., Tensor], layout: Layout) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the event function of the packed state."""
    return event_fn if layout.is_identity else lambda t, y: plain(event_fn(t, layout.unpack(y)))
