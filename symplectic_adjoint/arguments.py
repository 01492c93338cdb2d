"""The arguments of a solve, and their checks before func is called."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Self, TypedDict, TypeVar

import torch
from torch import Tensor

from symplectic_adjoint.backward.implicit_methods import require_method_fits
from symplectic_adjoint.backward.running_sum import ACCUMULATIONS
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.backward.users_capture import require_capturable
from symplectic_adjoint.defaults import check_gradient_name, default_budget, default_gradient
from symplectic_adjoint.errors import IgnoredArgumentWarning, UnsupportedCombination, did_you_mean, warn_once
from symplectic_adjoint.field.compiled import require_compiler
from symplectic_adjoint.field.cuda_graphs import may_capture_on
from symplectic_adjoint.field.host_reads import can_read, is_capturing, waits
from symplectic_adjoint.field.layout import Layout, PackedFunc
from symplectic_adjoint.field.module_lock import lock_of
from symplectic_adjoint.field.parameters import Params, collect_parameters, has_lazy_parameters, listed
from symplectic_adjoint.field.reach_walk import reach_of
from symplectic_adjoint.field.split_function import as_function
from symplectic_adjoint.field.subclasses import plain
from symplectic_adjoint.field.transforms import batched, transforming
from symplectic_adjoint.gradients import GRADIENTS
from symplectic_adjoint.gradients.auto import AUTO, Auto
from symplectic_adjoint.methods.lookup import named_method
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.callbacks import Callbacks
from symplectic_adjoint.solve.capture import Capture
from symplectic_adjoint.solve.inputs import (
    checked_event_times,
    checked_layout,
    checked_times,
    checked_tolerance,
    non_finite_start,
    packed_event,
    require_values,
    resolved_tolerances,
    savable,
)
from symplectic_adjoint.solve.options import KNOWN_OPTIONS, Options, read_options
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.repeated_times import RepeatedTimes
from symplectic_adjoint.solve.step_control import packed_norm
from symplectic_adjoint.steps.kind import step_of


class MethodKeywords(TypedDict, total=False):
    """The keywords of odeint that every public function takes: how to step, and which tensors func uses."""

    rtol: Any
    atol: Any
    method: str | None
    options: Mapping[str, Any] | None
    params: Params | None


class SolveKeywords(MethodKeywords, total=False):
    """All keywords of odeint."""

    event_fn: Callable[..., Tensor] | None
    gradient: str | Strategy | None
    memory_budget: Any
    compile: bool
    capture: bool | str
    accumulate: str | None
    on_failure: str


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of odeint, with its defaults; see odeint."""

    func: Any
    y0: Any
    t: Tensor
    rtol: Any = 1e-7
    atol: Any = 1e-9
    method: str | None = None
    options: Mapping[str, Any] | None = None
    event_fn: Callable[..., Tensor] | None = None
    gradient: str | Strategy | None = None
    params: Params | None = None
    memory_budget: Any = None
    compile: bool = False
    capture: bool | str = False
    accumulate: str | None = None
    on_failure: str = "raise"

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", savable(plain(self.t)))
        object.__setattr__(self, "func", as_function(self.func))
        if self.params is not None:  # an iterator would be empty at a second solve of the same arguments
            object.__setattr__(self, "params", listed("params", self.params))

    @classmethod
    def of(cls, caller: str, keywords: Mapping[str, Any], *, accepted: type = MethodKeywords, **given: Any) -> Self:
        """Return the arguments of the public function `caller`, which takes the keywords that `accepted` declares.

        Raises TypeError for any other keyword.
        """
        for name in keywords:
            if name not in accepted.__annotations__:
                near = did_you_mean(name, (*accepted.__annotations__, *given))
                if name in KNOWN_OPTIONS:
                    near = f": give it in options={{{name!r}: ...}}"
                raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{near}")
        if accepted is MethodKeywords and (keywords.get("options") or {}).get("stop") is not None:
            raise UnsupportedCombination(f"{caller}() solves up to the last time: leave out option 'stop'")
        return cls(**given, **keywords)

    def with_constant_times(self) -> Self:
        """Return the same arguments with a t that needs no gradient."""
        return replace(self, t=self.t.detach()) if isinstance(self.t, Tensor) else self


F = TypeVar("F", bound=Callable[..., Any])


def shows_keywords(accepted: type) -> Callable[[F], F]:
    """Decorate a function of **keywords: its signature shows the accepted ones, with their defaults."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        defaults = {x.name: x.default for x in fields(Arguments)}
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
            for name, annotation in accepted.__annotations__.items()
            if name not in signature.parameters
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *more])
        return function

    return decorate


def build_problem(given: Arguments) -> tuple[Problem, Strategy, Tensor]:
    """Return the problem that the arguments define, the strategy of its gradient, and y0 packed into one tensor.

    All checks that do not need func's values are made here, before func is called. Raises ValueError or TypeError for
    invalid arguments; UnsupportedCombination says where the gradient was set, if the call does not give it.
    """
    if given.on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure must be 'raise' or 'return', got {given.on_failure!r}")
    if not callable(given.func):
        raise TypeError(f"func must be callable as func(t, y), got {type(given.func).__name__}")
    try:
        return _checked_problem(given)
    except UnsupportedCombination as error:
        if given.gradient is not None or (origin := default_gradient().origin) is None:
            raise
        raise UnsupportedCombination(f"{error} (this gradient is the default that was set by {origin})") from error


def _checked_problem(given: Arguments) -> tuple[Problem, Strategy, Tensor]:
    """Return what build_problem does.

    func's parameters are collected under the lock of its module, because a backward pass in another thread may have
    replaced them by aliases.
    """
    strategy, gradient_name = named_gradient(given.gradient, given.memory_budget)
    func, event_fn = given.func, given.event_fn
    tableau = chosen_method(given.method, strategy, gradient_name)
    require_values(given.y0, given.t)
    times, repeated = _checked_times(given)
    distinct_t = given.t if repeated is None else repeated.distinct(given.t)
    layout = checked_layout(given.y0)
    y = savable(layout.pack(given.y0))
    # On a card this would be one wait more: there the reads of the solve show it, unless event_fn is called first.
    if can_read(y) and (given.event_fn is not None or not waits(y)) and (error := non_finite_start(layout, y)):
        raise error
    rtol, atol = checked_tolerance("rtol", given.rtol, layout, y), checked_tolerance("atol", given.atol, layout, y)
    coarsest = max((layout.time_dtype, given.t.dtype), key=lambda dtype: torch.finfo(dtype).eps)
    reach = reach_of(func)
    with lock_of(reach.modules):
        lazy = has_lazy_parameters(reach, given.params)
        if lazy:  # the first call gives them their shapes
            with torch.no_grad():
                func(torch.scalar_tensor(times[0], dtype=layout.time_dtype, device=y.device), layout.unpack(y.detach()))
        parameters = collect_parameters(func, reach, given.params)
        options, tableau = read_options(
            given.options,
            tableau,
            rtol,
            atol,
            times,
            lambda make: make(func, given.y0, distinct_t),  # a grid_constructor may read func's parameters
            partial(packed_norm, layout),
            coarsest,
        )
    options = _options_for(strategy, gradient_name, options, given.options)
    require_method_fits(
        func, tableau, strategy, gradient_name, y,
        options=given.options or {},
        others=_any_of([AUTO, *(name for name, one in GRADIENTS.items() if one.takes_implicit)]),
        compiles=given.compile,
        captures=given.capture is True,
        dtypes=[part.dtype for part in layout.parts],
    )  # fmt: skip
    options = _checked_grid(options, layout, event_fn, (y, *parameters.trainable, *parameters.frozen))
    problem = Problem(
        func=reach.func if layout.is_identity else PackedFunc(reach.func, layout),
        reach=reach,
        parameters=parameters,
        tableau=tableau,
        times=times,
        repeated=repeated,
        options=options,
        gradient_name=gradient_name,
        make_step=strategy.make_step if strategy.own_steps else step_of(tableau),
        layout=layout,
        caller=func,
        event=None if event_fn is None else packed_event(event_fn, layout),
        accumulate=checked_accumulate(given.accumulate, strategy, gradient_name),
        compile=checked_compile(given, strategy, gradient_name, layout),
        capture=False if tableau.implicit else checked_capture(given.capture, strategy, gradient_name, y),
        returns_early=given.on_failure == "return",
        calls_before=int(lazy),
    )
    require_capturable(problem, strategy, y, given.t)
    return problem, strategy, y


def _checked_times(given: Arguments) -> tuple[tuple[float, ...], RepeatedTimes | None]:
    """Return the distinct output times, and where t repeats some of them, None if it does not."""
    times = checked_times(given.t)
    if given.event_fn is not None:
        return checked_event_times(given.event_fn, times), None
    repeated = RepeatedTimes.of(times)
    return times if repeated is None else tuple(times[j] for j in repeated.first), repeated


def chosen_method(method: str | None, strategy: Strategy, gradient_name: str) -> ButcherTableau:
    """Return the method of this name, or the gradient's own one; raise UnsupportedCombination if they conflict."""
    own = strategy.own_tableau
    if own is None:
        return named_method(method)
    if method not in (None, own.name):
        raise UnsupportedCombination(
            f"gradient={gradient_name!r} only works with its own method {own.name!r}, got method={method!r}: leave "
            'method out, or use gradient="reversible", which wraps any method'
        )
    return own


def named_gradient(gradient: str | Strategy | None, budget: Any = None) -> tuple[Strategy, str]:
    """Return the strategy and its name; those of set_default for None. budget is memory_budget, for "auto" only.

    Raises ValueError or TypeError if there is no such gradient, UnsupportedCombination for a budget without "auto".
    """
    gradient = check_gradient_name(default_gradient().value if gradient is None else gradient)
    if gradient == AUTO:
        return Auto(default_budget() if budget is None else budget), AUTO
    if budget is not None:
        raise UnsupportedCombination(
            f'memory_budget={budget!r} belongs to gradient="auto", got gradient={gradient!r}: leave out one of '
            'the two (Revolve("64 MiB") keeps that many bytes of states)'
        )
    return (GRADIENTS[gradient], gradient) if isinstance(gradient, str) else (gradient, str(gradient))


def _options_for(strategy: Strategy, gradient_name: str, options: Options, given: Mapping[str, Any] | None) -> Options:
    """Return the options for the steps of this gradient; raise UnsupportedCombination for one it does not support."""
    if not strategy.own_steps:
        return options
    if (given or {}).get("outputs") == "interpolate" or (given or {}).get("interp") is not None:
        raise UnsupportedCombination(
            f"gradient={gradient_name!r} takes its own steps, which have no dense output and end on every entry of "
            "t: leave out the options 'outputs' and 'interp'"
        )
    if options.jumps and not strategy.crosses_jumps:
        raise UnsupportedCombination(
            f"option 'jump_t' does not work with gradient={gradient_name!r}, whose slope v would be carried over the "
            'jump: use gradient="reversible", or solve up to the jump and continue from there'
        )
    return replace(options, land=True)


def _checked_grid(
    options: Options, layout: Layout, event_fn: Callable[..., Tensor] | None, tensors: Sequence[Tensor]
) -> Options:
    """Return the options with tolerances that y0's dtype resolves.

    Raises UnsupportedCombination for adaptive steps under vmap, an event on a grid without step_size, or an event with
    the option stop.
    """
    if options.stop is not None and event_fn is not None:
        raise UnsupportedCombination("option 'stop' and event_fn both end the solve: keep one")
    if options.control is not None:
        rtol, atol = resolved_tolerances(options.control.rtol, options.control.atol, layout)
        options = replace(options, control=replace(options.control, rtol=rtol, atol=atol))
        if any(map(batched, tensors)):
            raise UnsupportedCombination(
                "vmap needs a fixed grid, since samples cannot take different steps: give step_size in options, or "
                "a y0 with a batch dimension instead of vmap"
            )
    elif event_fn is not None and options.step_size is None:
        raise UnsupportedCombination("event_fn with fixed steps needs their size: give step_size in options")
    return options


def warn_of_adjoint_callbacks(problem: Problem, strategy: Strategy) -> None:
    """Warn if func has callbacks of a second solve and this gradient has no second solve."""
    names = Callbacks(problem.caller, problem.layout.unpack, "_adjoint").names
    if names and not strategy.second_solve:
        warn_without_second_solve("adjoint callbacks", [f"func.{name}" for name in names], problem.gradient_name)


def warn_without_second_solve(subject: str, names: Sequence[str], gradient_name: str) -> None:
    """Warn, once a process for each subject, that these settings of a second solve have no effect without one."""
    warn_once(
        IgnoredArgumentWarning,
        subject,
        f"{', '.join(names)}: no effect, because gradient={gradient_name!r} has no second solve: leave out what "
        'belongs to one, or use gradient="continuous", which has one',
    )


def checked_accumulate(accumulate: Any, strategy: Strategy, gradient_name: str) -> str | None:
    """Return `accumulate`; raise ValueError if it is unknown, UnsupportedCombination if it does not work here."""
    if accumulate is None:
        return None
    if accumulate not in ACCUMULATIONS:
        names = ", ".join(map(repr, ACCUMULATIONS))
        raise ValueError(f"accumulate must be None or one of {names}, got {accumulate!r}")
    if not strategy.accumulates:
        raise UnsupportedCombination(
            f"accumulate={accumulate!r} belongs to gradients that sum step by step, got gradient={gradient_name!r}: "
            f"use {_any_of([AUTO, *(name for name, one in GRADIENTS.items() if one.accumulates)])}"
        )
    if transforming():
        raise UnsupportedCombination(
            f"accumulate={accumulate!r} does not work under torch.func or forward mode, which differentiate the "
            "operations themselves: leave it out, or use torch.autograd"
        )
    return accumulate


def checked_compile(given: Arguments, strategy: Strategy, gradient_name: str, layout: Layout) -> bool:
    """Return `compile` if this solve can be compiled.

    Raises TypeError if it is not a bool, UnsupportedCombination for a solve that cannot be compiled, and
    CompilerNotFound.
    """
    if not isinstance(given.compile, bool):
        raise TypeError(f"compile must be True or False, got {given.compile!r}")
    if not given.compile:
        return False
    if not strategy.compiles:
        raise UnsupportedCombination(
            f"compile=True does not work with gradient={gradient_name!r}: "
            f"use {_any_of(name for name, one in GRADIENTS.items() if one.compiles)}"
        )
    for found, what in (
        (not layout.is_identity, "a structured, subclassed or half precision state"),
        (layout.dtype.is_complex, "a complex state"),
        (given.accumulate is not None, f"accumulate={given.accumulate!r}"),
        (strategy.obstacle_to_compile, strategy.obstacle_to_compile),
        (transforming(), "torch.func or forward mode"),
    ):
        if found:
            raise UnsupportedCombination(f"compile=True does not work with {what}: leave it out")
    require_compiler()
    return True


def checked_capture(capture: Any, strategy: Strategy, gradient_name: str, y: Tensor) -> Capture:
    """Return `capture` for this solve; "auto" becomes False where the solve cannot be captured or y is not on a card.

    Raises TypeError if it is none of its values, UnsupportedCombination for a solve that cannot be captured.
    """
    if not isinstance(capture, bool) and capture != "auto":
        raise TypeError(f"capture must be True, False or 'auto', got {capture!r}")
    obstacles = (strategy.obstacle_to_capture, "torch.func or forward mode" if transforming() else None)
    if capture == "auto":
        possible = may_capture_on(y) and strategy.captures and not any(obstacles)
        return "auto" if possible and not is_capturing(y.device) else False
    if not capture or (strategy.captures and y.numel() == 0):  # an empty state takes no time
        return False
    if not strategy.captures:
        raise UnsupportedCombination(
            f"capture=True does not work with gradient={gradient_name!r}: "
            f"use {_any_of([AUTO, *(name for name, one in GRADIENTS.items() if one.captures)])}"
        )
    for what in obstacles:
        if what is not None:
            raise UnsupportedCombination(f"capture=True does not work with {what}: leave it out")
    return not is_capturing(y.device)  # by the caller, whose graph then holds the whole solve


def _any_of(names: Iterable[str]) -> str:
    """Return the names quoted and joined, as in '"a", "b" or "c"'."""
    *others, last = (f'"{name}"' for name in names)
    return f"{', '.join(others)} or {last}" if others else last
