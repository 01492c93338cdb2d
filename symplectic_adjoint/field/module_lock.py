"""One solve at a time of a module: a sweep puts other tensors in the places of its parameters."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_MAKING = Lock()


def lock_of(modules: Sequence[nn.Module]) -> AbstractContextManager[Any]:
    """The lock of the first of them. A solve of one thread may call another of the same module."""
    if not modules:
        return nullcontext()
    with _MAKING:
        return _LOCKS.setdefault(modules[0], RLock())
