"""The gradient and the memory budget of calls that give none."""

import os
import sys
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Self

from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.errors import did_you_mean
from symplectic_adjoint.gradients import DEFAULT_GRADIENT, GRADIENTS, OTHER_NAMES
from symplectic_adjoint.gradients.auto import AUTO
from symplectic_adjoint.memory.byte_size import parse_bytes

GRADIENT_VARIABLE = "SYMPLECTIC_ADJOINT_GRADIENT"
BUDGET_VARIABLE = "SYMPLECTIC_ADJOINT_MEMORY_BUDGET"


class _Unchanged:
    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED: Any = _Unchanged()


@dataclass(frozen=True)
class Default:
    """A value, and where it was set, in words. A value of None leaves the choice to what is set further out."""

    value: Any = None
    origin: str | None = None


@dataclass(frozen=True)
class _Defaults:
    gradient: Default = Default()
    memory_budget: Default = Default()


_process = _Defaults()
_lock = Lock()
_context: ContextVar[_Defaults] = ContextVar("symplectic_adjoint_defaults", default=_Defaults())  # noqa: B039 (frozen)


class set_default:
    """Set the gradient and the memory budget of every solve that does not give its own.

    A call holds for the whole process. As a context manager, `with set_default(...)`, it holds inside the block, in the
    current thread and the asyncio tasks started there, and takes precedence over any call; other threads do not see it.
    A gradient or memory_budget passed to a function wins over both. If nothing is set, the environment variables
    SYMPLECTIC_ADJOINT_GRADIENT and SYMPLECTIC_ADJOINT_MEMORY_BUDGET are read at each solve; without these the
    gradient is "symplectic".

    gradient: a name in GRADIENTS, an object such as Symplectic(keep="stages"), or "auto". memory_budget: the budget of
    gradient="auto". None undoes what was set. Raises ValueError or TypeError for an unknown gradient or budget.
    """

    def __init__(self, *, gradient: str | Strategy | None = UNCHANGED, memory_budget: int | str | None = UNCHANGED):
        if gradient is not UNCHANGED and gradient is not None:
            check_gradient_name(gradient)
        if memory_budget is not UNCHANGED and memory_budget is not None:
            parse_bytes("memory_budget", memory_budget)
        given = {"gradient": gradient, "memory_budget": memory_budget}
        origin = _caller()
        self._changes = {name: Default(x, origin) for name, x in given.items() if x is not UNCHANGED}
        self._tokens: list[Token[_Defaults]] = []
        global _process
        with _lock:
            self._before = _process
            self._after = _process = replace(_process, **self._changes)

    def __enter__(self) -> Self:
        """Hold in this context only: take back what the call set for the process."""
        global _process
        with _lock:
            if _process is self._after:
                _process = self._before
        self._tokens.append(_context.set(replace(_context.get(), **self._changes)))
        return self

    def __exit__(self, *exception: object) -> None:
        _context.reset(self._tokens.pop())


def default_gradient() -> Default:
    """Return the gradient of a call that gives none. Raises ValueError for an unknown one in the environment."""
    for one in (_context.get().gradient, _process.gradient):
        if one.value is not None:
            return one
    name = os.environ.get(GRADIENT_VARIABLE)
    if not name:
        return Default(DEFAULT_GRADIENT)
    origin = f"the environment variable {GRADIENT_VARIABLE}"
    check_gradient_name(name, origin)
    return Default(name, origin)


def default_budget() -> int | str | None:
    """Return the memory budget of a call with gradient="auto" that gives none; None for the memory that is free.

    Raises ValueError for a size in the environment that cannot be read.
    """
    for one in (_context.get().memory_budget, _process.memory_budget):
        if one.value is not None:
            return one.value
    size = os.environ.get(BUDGET_VARIABLE)
    if not size:
        return None
    parse_bytes(f"the environment variable {BUDGET_VARIABLE}", size)
    return size


def check_gradient_name(gradient: Any, origin: str | None = None) -> str | Strategy:
    """Return the gradient; raise ValueError for an unknown name, TypeError for neither a name nor a gradient object."""
    if isinstance(gradient, str):
        if gradient not in (*GRADIENTS, AUTO):
            names = (*GRADIENTS, AUTO)
            of, near = f" in {origin}" if origin else "", did_you_mean(gradient, names, OTHER_NAMES)
            raise ValueError(f"unknown gradient {gradient!r}{of}{near}: gradients are {', '.join(names)}")
    elif isinstance(gradient, type) or not isinstance(gradient, Strategy):
        raise TypeError(f"gradient must be a name in GRADIENTS or an object such as Symplectic(), got {gradient!r}")
    return gradient


def _caller() -> str:
    """Return the line outside this library that called set_default, in words."""
    frame = sys._getframe(2)
    return f"set_default() in {frame.f_code.co_filename}, line {frame.f_lineno}"
