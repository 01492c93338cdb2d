"""One solve at a time per module, because a sweep replaces the module's parameters by aliases."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_LOCK_OF_LOCKS = Lock()


def lock_of(modules: Sequence[nn.Module]) -> AbstractContextManager[Any]:
    """Return the lock of the first module. It is reentrant: a solve may run another one of the same module."""
    if not modules:
        return nullcontext()
    with _LOCK_OF_LOCKS:
        return _LOCKS.setdefault(modules[0], RLock())
