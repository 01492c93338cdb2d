"""The names and signatures of torchdiffeq and of the code published with the paper."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.api import odeint
from symplectic_adjoint.arguments import named_gradient, warn_without_second_solve
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.parameters import Params, listed
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.methods.lookup import FOREIGN_METHODS, named_method
from symplectic_adjoint.solve.inputs import plain_tolerance


@untraced
def odeint_adjoint(
    func: FuncOrPair,
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
    adjoint_params: Params | None = None,
    gradient: str | Strategy | None = None,
    params: Params | None = None,
    memory_budget: Any = None,
    compile: bool = False,
    capture: bool | str = False,
    accumulate: str | None = None,
    on_failure: str = "raise",
) -> Any:
    """Solve like odeint, with torchdiffeq's adjoint arguments; the gradient is exact unless gradient="continuous".

    adjoint_params: tensors that func uses, like params; the parameters of func's own module may be left out.
    adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options: settings of the second solve of gradient="continuous".
        The norm in adjoint_options is "seminorm", the default, "mixed" for step control of the parameters' gradient
        too, as torchdiffeq's default norm has it, or a function of a state.
    Any other gradient has no second solve: they have no effect there, which an IgnoredArgumentWarning says once.

    Returns what odeint returns and raises what it raises.
    """
    given = {"rtol": adjoint_rtol, "atol": adjoint_atol, "method": adjoint_method, "options": adjoint_options}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {name: plain_tolerance(given[name]) for name in ("rtol", "atol") if name in given}
    if adjoint_method is not None and adjoint_method != method and options is not None and adjoint_options is None:
        raise ValueError(
            "with options and a different adjoint_method, adjoint_options must be given too (it may be {})"
        )
    if given:
        gradient = _with_second_solve(gradient, memory_budget, given)
    return odeint(
        func, y0, t,
        rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn,
        gradient=gradient,
        params=(*listed("params", params), *listed("adjoint_params", adjoint_params)),
        memory_budget=memory_budget, compile=compile, capture=capture, accumulate=accumulate, on_failure=on_failure,
    )  # fmt: skip


@untraced
def odeint_event(
    func: FuncOrPair,
    y0: Any,
    t0: Tensor | float,
    *,
    event_fn: Callable[..., Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **keywords: Any,
) -> tuple[Tensor, Any]:
    """Solve from t0 until event_fn(t, y) changes sign; return (event time, ys at t0 and at the event).

    t0: a number or a one-element tensor. reverse_time: solve backwards in time. odeint_interface: this library's odeint
    or odeint_adjoint, or a functools.partial of one; keywords are passed on to it. ys has shape (2, *y0.shape).

    Raises TypeError if event_fn is not callable, and ValueError for the odeint of another library, whose results have
    no gradient through the time of the event.
    """
    base = odeint_interface
    while isinstance(base, partial):
        base = base.func
    if base not in (odeint, odeint_adjoint):
        raise ValueError(
            f"odeint_interface must be symplectic_adjoint's odeint or odeint_adjoint, got {odeint_interface!r}: import "
            "both from the same library"
        )
    return solve_until_event(func, y0, t0, event_fn, reverse_time, odeint_interface, keywords)


def solve_until_event(
    func: FuncOrPair,
    y0: Any,
    t0: Tensor | float,
    event_fn: Callable[..., Tensor],
    reverse_time: bool,
    odeint_interface: Callable[..., Any],
    keywords: Mapping[str, Any],
) -> tuple[Tensor, Any]:
    """Return what odeint_event returns, by any interface; raise ValueError if it loses the gradient of the time."""
    if not callable(event_fn):
        raise TypeError(f"event_fn must be callable as event_fn(t, y), got {type(event_fn).__name__}")
    t0 = t0 if isinstance(t0, Tensor) else torch.tensor(t0, dtype=torch.float64, device="cpu")
    if t0.numel() != 1:
        raise ValueError(f"t0 must be one time, got shape {tuple(t0.shape)}")
    t0 = t0.reshape(1)
    other = t0.detach()  # t0 + 1 is t0 itself if t0 is large
    other = other + (-1.0 if reverse_time else 1.0) * (1.0 + other.abs())
    event_t, ys = odeint_interface(func, y0, torch.cat([t0, other]), event_fn=event_fn, **keywords)
    parts = [ys] if isinstance(ys, Tensor) else ys
    if not event_t.requires_grad and any(isinstance(x, Tensor) and x.requires_grad for x in parts):
        raise ValueError(
            f"{odeint_interface!r} loses the gradient of the event time: solve by symplectic_adjoint's odeint"
        )
    return event_t, ys


def _with_second_solve(
    gradient: str | Strategy | None, memory_budget: Any, given: dict[str, Any]
) -> str | Strategy | None:
    """Return the gradient with these settings of its second solve; warn if it has none, for which they are checked."""
    strategy, name = named_gradient(gradient, memory_budget)
    if not strategy.second_solve:
        _check_second_solve(given)
        warn_without_second_solve("adjoint settings", [f"adjoint_{setting}" for setting in given], name)
        return gradient
    for setting, value in given.items():
        own = getattr(strategy, setting)
        if own is not None and own != value:
            raise UnsupportedCombination(
                f"adjoint_{setting}={value!r} and gradient={name} both set the second solve's {setting}: keep one"
            )
    if "method" in given:
        named_method(given["method"])
    return replace(cast(Any, strategy), **given)


def _check_second_solve(given: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for a setting that torchdiffeq cannot use either; all others are accepted."""
    for setting in ("rtol", "atol"):
        value = given.get(setting)
        for entry in value if isinstance(value, list | tuple) else (value,):
            if isinstance(entry, bool) or not isinstance(entry, int | float | Tensor | None):
                raise TypeError(f"adjoint_{setting} must be a number or a tensor, got {entry!r}")
    method = given.get("method")
    if method is not None and not (isinstance(method, str) and method in FOREIGN_METHODS):
        named_method(method)
    options = given.get("options", {})
    if not isinstance(options, Mapping):
        raise TypeError(f"adjoint_options must be a mapping of names to values, got {type(options).__name__}")
    norm = options.get("norm", "seminorm")
    if not (norm in ("seminorm", "mixed") or callable(norm)):
        raise TypeError(f"adjoint_options: 'norm' must be a function, 'seminorm' or 'mixed', got {norm!r}")


def _as_in_the_paper(gradient: str) -> Callable[..., Any]:
    @untraced
    def solve(
        func: FuncOrPair,
        y0: Any,
        t: Tensor,
        *,
        rtol: Any = 1e-7,
        atol: Any = 1e-9,
        method: str | None = None,
        options: Mapping[str, Any] | None = None,
        event_fn: Callable[..., Tensor] | None = None,
        adjoint_params: Params | None = None,
    ) -> Any:
        return odeint(
            func, y0, t,
            rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn, gradient=gradient,
            params=listed("adjoint_params", adjoint_params),
        )  # fmt: skip

    solve.__doc__ = f"""Solve like odeint with gradient="{gradient}", with the signature of the paper's own code.

    Matsubara, Miyatake and Yaguchi (NeurIPS 2021). adjoint_params are added to func's own parameters.
    """
    return solve


odeint_symplectic_adjoint = _as_in_the_paper("symplectic")
odeint_checkpoint = _as_in_the_paper("aca")
odeint_onecheckpoint = _as_in_the_paper("baseline")
