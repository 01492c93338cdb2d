"""torchdiffeq itself, if it is installed."""

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

PACKAGE = "torchdiffeq"
FUNCTIONS = ("odeint", "odeint_adjoint", "odeint_event", "odeint_dense")


def entries() -> dict[str, ModuleType]:
    """Return the entries of sys.modules that belong to the name torchdiffeq."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE}


@cache
def genuine_modules() -> Mapping[str, ModuleType]:
    """Import torchdiffeq and return its modules by name; empty if it is not installed.

    Called before the first replacement, and cached, because its names lead to the replacement from then on.
    """
    try:
        importlib.import_module(PACKAGE)
    except ImportError:
        return {}
    return entries()


def genuine(path: str) -> Any:
    """Return the object at module.name in torchdiffeq itself; None if torchdiffeq is not installed or lacks it."""
    module, _, name = path.rpartition(".")
    return getattr(genuine_modules().get(module), name, None)
