"""Autocast, which casts the operations of func, and must not cast those of the solver."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocast_is_on(device_type: str) -> bool:
    """Return whether autocast is on for devices of this type."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Return a context in which autocast is off."""
    return torch.autocast(device_type, enabled=False) if autocast_is_on(device_type) else nullcontext()
