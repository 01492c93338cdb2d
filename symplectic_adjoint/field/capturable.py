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
from symplectic_adjoint.errors import UnsupportedCombination

_OWN_FOLDERS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))

_READS_OF_METHODS = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
"""Reads of a tensor that no operation shows if it lies on the host."""

_READS = ("_linalg_check_errors",)
"""Operations that wait for the device, though torch does not mark them as such."""


class NotCapturable(UnsupportedCombination):
    """Raised with capture=True for a func that does what no captured program can repeat."""


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
        reason = _reason(func, args, kwargs or {})
        if reason is not None:
            raise _refusal(str(func), reason)
        return func(*args, **(kwargs or {}))


def _reason(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return why an operation cannot be captured, None if it can."""
    name, tags = func.__name__.partition(".")[0], func.tags
    if torch.Tag.nondeterministic_seeded in tags:
        return "draws random numbers"
    if torch.Tag.data_dependent_output in tags or name in _READS:
        return "reads a value on the host"
    if name in ("index", "index_put", "index_put_"):
        return "has a result whose shape depends on values" if _by_mask(name, args) else None
    if torch.Tag.dynamic_output_shape in tags:
        return "has a result whose shape depends on values"
    if name in ("_to_copy", "copy_"):
        return _reason_of_copy(name, args, kwargs)
    return None


def _by_mask(name: str, args: Sequence[Any]) -> bool:
    """Return whether an index is a mask. Assigning one number to a mask is no such index: torch fills it in place."""
    masks = [x for x in args[1] if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)]
    fills = name != "index" and len(masks) == 1 and args[2].numel() == 1
    return bool(masks) and not fills


def _reason_of_copy(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    if name == "_to_copy":
        source, to = args[0].device, torch.device(kwargs.get("device") or args[0].device)
    else:
        source, to = args[1].device, args[0].device
        if to.type == "cpu" and args[0].is_pinned():  # a program's own result
            return None
    if source.type == to.type:
        return None
    return f"copies a tensor from {source.type} to {to.type} (make it a buffer of func's module, on func's device)"


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
