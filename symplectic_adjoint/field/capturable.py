"""The operations that a captured program cannot hold: it is replayed without Python, and without the host."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from symplectic_adjoint._torch_internals import DispatchMode
from symplectic_adjoint.errors import NotCapturable, UnsupportedCombination
from symplectic_adjoint.field.host_operations import arguments_of, draws, why_it_waits

_OWN_FOLDERS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))

_READS_OF_METHODS = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
"""Reads of a tensor that no operation shows if it lies on the host."""


@contextmanager
def only_capturable(*, shown: bool = True) -> Iterator[None]:
    """Raise NotCapturable, which names it and the line, for an operation in the block that cannot be captured.

    shown: whether torch shows the operations of func. It does not show those of compiled modules, which would be
    compiled anew for this block.
    """
    if not shown:
        yield
        return
    try:
        with _Methods(), _Operations():
            yield
    except NotCapturable:
        raise
    except UnsupportedCombination as error:
        raise NotCapturable(str(error)) from error


class _Methods(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _READS_OF_METHODS:
            raise _refusal(f"Tensor.{func.__name__}", "reads a tensor on the host")
        return func(*args, **(kwargs or {}))


class _Operations(DispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = arguments_of(func, args, kwargs or {})
        reason = "draws random numbers" if draws(func, given) else why_it_waits(func, given)
        if reason is not None:
            raise _refusal(str(func), reason)
        return func(*args, **(kwargs or {}))


def _refusal(operation: str, reason: str) -> NotCapturable:
    return NotCapturable(
        f"capture=True: func cannot be captured: {operation} {reason}{_users_line()}. Write func with tensor "
        'operations on the device only, or leave capture out (capture="auto" does that by itself)'
    )


def _users_line() -> str:
    """Return where func is at this moment, as " at file:line (the code)"; nothing if it cannot be told."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_OWN_FOLDERS):
            return f" at {frame.filename}:{frame.lineno} ({frame.line})"
    return ""


def translated(error: Exception) -> NotCapturable:
    """Return the refusal for an error that the device raised while a program was captured."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return _refusal("an operation", f"is not allowed while a CUDA graph is captured ({first})")


Body = Callable[[], None]
"""A function that works on static buffers only."""
