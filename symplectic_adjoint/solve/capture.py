"""Which programs a captured solve uses, and the functions of which it is known that they cannot be captured."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.captured import CapturedSteps, ErrorMeasure
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.finite import all_finite
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.field.reach import Reach
from symplectic_adjoint.field.traced_function import cache_owner
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.step_control import StepControl, rms_norm

Capture = Literal[False, True, "auto"]
"""Whether to capture: never, or say why not, or where func allows it."""


def captured_steps(
    caller: Any,
    tableau: ButcherTableau,
    like: Tensor,
    state: ForwardState,
    layout: Layout,
    control: StepControl | None,
    *,
    time_dtype: torch.dtype,
    dense: bool,
    compiled: bool,
    auto: bool,
    watched: bool,
    fresh: bool,
) -> CapturedSteps:
    """Return the programs for steps of a solve.

    caller: the function that the user passed. control: that of adaptive steps, None for steps that are known. dense:
    whether a step may hold an output. compiled: whether func is compiled. watched: whether the caller sees
    the steps as they are taken. auto, fresh: as for CapturedSteps.
    """
    rows = tableau.stages
    if control is not None:
        rows = max(rows, *(1 + terms[-1][0] for terms in tableau.terms.errors))
    if dense:
        rows = max(rows, tableau.interpolant.rows)
    return CapturedSteps(
        cache_owner(caller),
        tableau,
        rows,
        like,
        time_dtype,
        state,
        CallCounters(caller, state.reach.modules, "capture=True", state.reach.stores),
        None if control is None else _measured(control, layout),
        layout=(layout.structured, tuple(layout.parts)),
        parts=tuple(part.shape.numel() for part in layout.parts) if layout.structured else (like.numel(),),
        knows_k1=control is not None,
        reads_at_once=watched,
        compiled=compiled,
        auto=auto,
        fresh=fresh,
    )


def _measured(control: StepControl, layout: Layout) -> ErrorMeasure | None:
    """Return how a program measures errors; None for a norm of the caller's, which may do anything."""
    if control.norm is not rms_norm and getattr(control.norm, "__func__", None) is not Layout.norm:
        return None

    def measures(tolerances: Sequence[Tensor]) -> StepControl:
        rtol, atol = tolerances
        return replace(control, rtol=rtol, atol=atol)

    tolerances = control.rtol, control.atol
    shapes = tuple(x.shape if isinstance(x, Tensor) else None for x in tolerances)
    return ErrorMeasure(measures, tolerances, shapes)


WITHIN = 0.7236
"""Where in a solve a second value of func is compared: no simple fraction, at which a period might end."""


def compare_within(f: Field, start: float, end: float, y: Tensor) -> Callable[[], bool]:
    """Compare a value of func inside the solve with that of the programs: some changes do not show at its start.

    Return a function that says whether y, the last state, is finite. It raises ProgramsOutdated if the programs of the
    solve were outdated.
    """
    captured = f.captured
    if captured is None or not captured.in_use:
        return partial(all_finite, y)
    t = start + WITHIN * (end - start)
    captured.compare_once_more(f, t, y, f(t, y))
    f.f_calls += 1
    return lambda: captured.read_norms(1) == [1.0]


_REFUSED: WeakKeyDictionary[Any, dict[Hashable, str]] = WeakKeyDictionary()
"""By function and modes, why it cannot be captured."""


def refusal_of(caller: Any, reach: Reach) -> str | None:
    """Return why func, in the modes that its modules are in, could not be captured; None if that is not known."""
    return _REFUSED.get(cache_owner(caller), {}).get(_modes(reach))


def remember_refusal(caller: Any, reach: Reach, reason: str) -> None:
    """Remember why func cannot be captured, so that it is tried once."""
    _REFUSED.setdefault(cache_owner(caller), {})[_modes(reach)] = reason


def _modes(reach: Reach) -> Hashable:
    return tuple(getattr(m, "training", None) for m in reach.modules), torch.is_autocast_enabled("cuda")
