"""func as a pair (explicit, implicit): their sum is f, and additive methods call them one by one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

FuncOrPair = Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]]
"""func as users give it: called as func(t, y), or a pair (explicit, implicit) of such functions."""

_PART: ContextVar[int | None] = ContextVar("part", default=None)


def active_part() -> int | None:
    """Return which part is called at present: 0 explicit, 1 implicit; None for the sum."""
    return _PART.get()


@contextmanager
def evaluating(part: int | None) -> Iterator[None]:
    """Let split functions return one part."""
    token = _PART.set(part)
    try:
        yield
    finally:
        _PART.reset(token)


def evaluating_row(parts: tuple[int, ...] | None, i: int) -> Any:
    """Return a context in which the part of row i of a tableau is called; parts: None if the method is not additive."""
    return nullcontext() if parts is None else evaluating(parts[i])


class SplitFunction(nn.Module):
    """explicit + implicit, or one of them within `evaluating`."""

    def __init__(self, explicit: Callable[..., Any], implicit: Callable[..., Any]):
        super().__init__()
        self.explicit, self.implicit = explicit, implicit

    def forward(self, t: Tensor, y: Any) -> Any:
        part = active_part()
        if part is None:
            return _sum(self.explicit(t, y), self.implicit(t, y))
        with evaluating(None):  # a solve within func has functions of its own
            return (self.explicit, self.implicit)[part](t, y)


def as_function(func: Any) -> Any:
    """Return func, or a SplitFunction if it is a pair of functions. Raises TypeError for a tuple that is none."""
    if not isinstance(func, tuple | list):
        return func
    if len(func) == 2 and all(map(callable, func)):
        return SplitFunction(*func)
    raise TypeError(
        f"func must be callable as func(t, y), or a pair (explicit, implicit) of such functions, got {func!r}"
    )


def _sum(a: Any, b: Any) -> Any:
    """Return a + b, part by part if they are structured states."""
    if isinstance(a, Mapping):
        return {name: _sum(x, b[name]) for name, x in a.items()}
    if isinstance(a, tuple | list):
        return type(a)(_sum(x, y) for x, y in zip(a, b, strict=True))
    return a + b
