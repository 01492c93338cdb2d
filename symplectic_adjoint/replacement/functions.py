"""torchdiffeq's functions under their own names: its meaning of every argument, this library's solves and gradients."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_adjoint.api import odeint as our_odeint
from symplectic_adjoint.arguments import named_gradient
from symplectic_adjoint.dense import DenseSolution
from symplectic_adjoint.dense import odeint_dense as our_odeint_dense
from symplectic_adjoint.drop_in import odeint_adjoint as our_odeint_adjoint
from symplectic_adjoint.drop_in import solve_until_event
from symplectic_adjoint.errors import (
    IgnoredArgumentWarning,
    NotReplacedWarning,
    UnsupportedCombination,
    warn_once,
)
from symplectic_adjoint.field.parameters import listed
from symplectic_adjoint.methods.lookup import FIXED_IN_TORCHDIFFEQ, named_method
from symplectic_adjoint.methods.registry import ALIASES, METHODS
from symplectic_adjoint.replacement.genuine import genuine
from symplectic_adjoint.replacement.unused_parameters import with_zeros
from symplectic_adjoint.solve.options import GRID_OPTIONS

KEYWORDS = ("rtol", "atol", "method", "options")
NAMES_THERE = {"rk4": "rk38"}
"""Our names of the methods that have another one in torchdiffeq."""
ADAPTIVE_OPTIONS = (
    "norm", "first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "step_t", "jump_t", "max_num_steps",
    "dtype",
)  # fmt: skip
FIXED_OPTIONS = ("norm", "step_size", "grid_constructor", "interp", "perturb")
OWN_OPTIONS = ("outputs", "controller", "stop")
"""Options of this library that torchdiffeq has no name for."""
ADAPTIVE_CALLBACKS = ("callback_accept_step", "callback_reject_step")
OPTIONAL = ("first_step", "step_t", "jump_t", "step_size", "grid_constructor")
"""Options of which torchdiffeq reads None as not given."""


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
    **more: Any,
) -> Any:
    """Solve as torchdiffeq.odeint does, with this library's gradient. more: symplectic_adjoint.odeint's own keywords.

    Returns and raises what symplectic_adjoint.odeint does. A method that only torchdiffeq has is left to it, with a
    NotReplacedWarning.
    """
    given: dict[str, Any] = {"rtol": rtol, "atol": atol, "event_fn": event_fn}
    if (theirs := _left_to_torchdiffeq("odeint", method, more)) is not None:
        return theirs(func, y0, t, method=method, options=options, **given)
    return our_odeint(func, y0, t, **_as_here(func, method, options, t, more, event_fn), **given, **more)


def odeint_adjoint(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Any = None,
    **more: Any,
) -> Any:
    """Solve as torchdiffeq.odeint_adjoint does; the gradient is exact unless the default is "continuous".

    more, returns and raises: as for odeint. adjoint_params are added to func's own parameters. The gradient of a
    parameter that func does not use is zero, not None.
    """
    given: dict[str, Any] = {"rtol": rtol, "atol": atol, "event_fn": event_fn}
    second = {"rtol": adjoint_rtol, "atol": adjoint_atol, "method": adjoint_method, "options": adjoint_options}
    given |= {f"adjoint_{name}": value for name, value in (*second.items(), ("params", adjoint_params))}
    if (theirs := _left_to_torchdiffeq("odeint_adjoint", method, more)) is not None:
        return theirs(func, y0, t, method=method, options=options, **given)
    given["adjoint_method"] = NAMES_THERE.get(str(adjoint_method), adjoint_method)
    if adjoint_method in FIXED_IN_TORCHDIFFEQ:
        given["adjoint_options"] = _with_grid(adjoint_options, "step_size", _span(t))  # one step between outputs
    if adjoint_params is not None:
        differentiated = given["adjoint_params"] = listed("adjoint_params", adjoint_params)
    else:
        differentiated = listed("func", func) if isinstance(func, nn.Module) else ()
    here = _as_here(func, method, options, t, more, event_fn)
    return our_odeint_adjoint(func, with_zeros(y0, differentiated), t, **here, **given, **more)


def odeint_event(
    func: Callable[..., Any],
    y0: Any,
    t0: Tensor,
    *,
    event_fn: Callable[..., Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **keywords: Any,
) -> tuple[Tensor, Any]:
    """Solve until event_fn changes sign, as torchdiffeq.odeint_event does; return (event time, ys).

    odeint_interface: any function that solves by odeint or odeint_adjoint. torchdiffeq's own, and methods that only
    torchdiffeq has, are left to torchdiffeq, with a NotReplacedWarning. Raises ValueError if the interface loses the
    gradient of the event time.
    """
    base: Any = odeint_interface
    given = keywords
    while isinstance(base, partial):
        base, given = base.func, {**base.keywords, **given}
    more = {name: given[name] for name in given if name not in KEYWORDS and not name.startswith("adjoint_")}
    theirs = _left_to_torchdiffeq("odeint_event", given.get("method"), more)
    for name, function in (("odeint", odeint), ("odeint_adjoint", odeint_adjoint)):
        own = genuine(f"torchdiffeq.{name}")
        if own is not None and base is own:
            theirs = not_replaced("torchdiffeq.odeint_event")
        if theirs is not None and own is not None and base in (own, function):
            odeint_interface, keywords = own, given
    if theirs is not None:
        return theirs(
            func, y0, t0, event_fn=event_fn, reverse_time=reverse_time, odeint_interface=odeint_interface, **keywords
        )
    return solve_until_event(func, y0, t0, event_fn, reverse_time, odeint_interface, keywords)


def odeint_dense(
    func: Callable[..., Any],
    y0: Any,
    t0: Tensor | float,
    t1: Tensor | float,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> DenseSolution:
    """Solve from t0 to t1 and return y as a function of the time between them, as torchdiffeq.odeint_dense does."""
    ends = torch.tensor([float(x) for x in (t0, t1)], dtype=torch.float64, device="cpu")
    given = _as_here(func, method, options, ends, more, dense=True)
    return our_odeint_dense(func, y0, t0, t1, rtol=rtol, atol=atol, **given, **more)


def _as_here(
    func: Any,
    method: str | None,
    options: Any,
    t: Any,
    more: Mapping[str, Any],
    event_fn: Any = None,
    *,
    dense: bool = False,
) -> dict[str, Any]:
    """Return method and options as this library's odeint takes them; warn of those that torchdiffeq ignores.

    more: the other keywords. dense: whether the solution is wanted as a function of time, between the two of t.
    """
    method = NAMES_THERE.get(str(method), method)
    _warn_of_callbacks(func, method)
    fixed = method in FIXED_IN_TORCHDIFFEQ
    if fixed and options is None:
        options = {}
    if not isinstance(options, Mapping):
        return {"method": method, "options": options}
    adaptive = _is_adaptive(method)
    used = (*(ADAPTIVE_OPTIONS if adaptive else FIXED_OPTIONS), *OWN_OPTIONS)
    kept = {name: x for name, x in options.items() if name in used and not (x is None and name in OPTIONAL)}
    for name in options:
        if name not in used:
            own_solver = name == "max_iters" and named_method(method).implicit
            _warn_ignored(
                name, method, "stages are solved to rounding error" if own_solver else "torchdiffeq ignores it too"
            )
    if kept.pop("dtype", torch.float64) is not torch.float64:
        _warn_ignored("dtype", method, "times are kept in float64 on the host, whatever the device")
    if not adaptive:
        kept.pop("norm", None)  # torchdiffeq takes it and does not use it
        off_grid = "step_size" in kept or "grid_constructor" in kept
        if off_grid and not dense and not named_gradient(more.get("gradient"), more.get("memory_budget"))[0].own_steps:
            kept.setdefault("interp", "linear")
    elif "max_num_steps" in kept:  # torchdiffeq counts from output to output
        kept["max_num_steps"] = int(options["max_num_steps"]) * _intervals(t)
    if fixed and isinstance(t, Tensor):  # without step_size the grid is t, as with every fixed method
        kept = _with_grid(kept, "grid_points", t.detach())
        if event_fn is not None and "grid_points" in kept:
            raise UnsupportedCombination("event_fn with fixed steps needs their size: give step_size in options")
    return {"method": method, "options": kept}


def _intervals(t: Any) -> int:
    return max(1, t.numel() - 1) if isinstance(t, Tensor) else 1  # anything else is refused later


def _is_adaptive(method: str | None) -> bool:
    """Return whether the method is adaptive in torchdiffeq."""
    return named_method(method).adaptive and method not in FIXED_IN_TORCHDIFFEQ


def _with_grid(options: Any, name: str, grid: Any) -> Any:
    """Return the options with a grid under this name, if they are options and give none."""
    if not isinstance(options, Mapping | None) or any((options or {}).get(x) is not None for x in GRID_OPTIONS):
        return options
    return {**(options or {}), name: grid}


def _span(t: Any) -> float:
    """Return a step size that is longer than any interval of t."""
    return 2.0 * (1.0 + float((t[-1] - t[0]).abs())) if isinstance(t, Tensor) and t.ndim == 1 and len(t) else 1.0


def _warn_ignored(name: Any, method: str | None, reason: str) -> None:
    warn_once(
        IgnoredArgumentWarning, f"replaced {name}", f"option {name!r} has no effect with method={method!r}: {reason}"
    )


def _warn_of_callbacks(func: Any, method: str | None) -> None:
    """Warn, as torchdiffeq does, of callbacks that it has with adaptive methods only; here they are called."""
    names = [name for name in ADAPTIVE_CALLBACKS if getattr(func, name, None) is not None]
    if names and not _is_adaptive(method):
        warn_once(
            UserWarning,
            f"replaced {method} {names}",
            f"{', '.join(names)} with method={method!r}: torchdiffeq calls them with adaptive methods only; here every "
            "fixed step is accepted",
        )


def _left_to_torchdiffeq(name: str, method: Any, more: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return torchdiffeq's own function if only torchdiffeq has the method, with a warning; else None.

    more: keywords of this library, which torchdiffeq does not know.
    """
    solvers = genuine("torchdiffeq._impl.odeint.SOLVERS")
    if more or not isinstance(method, str) or method in (*METHODS, *ALIASES) or method not in (solvers or ()):
        return None
    return not_replaced(f"torchdiffeq.{name}", f"method {method!r} is not available here: ")


def not_replaced(path: str, reason: str = "") -> Any:
    """Return the object of torchdiffeq itself, with a warning that it is not replaced."""
    warn_once(
        NotReplacedWarning,
        f"{path} {reason}",
        f"{reason}{path} is torchdiffeq's own; a solve by it has torchdiffeq's gradient, not that of the steps taken",
    )
    return genuine(path)
