"""Which classes and values are not the user's own: those of Python, torch and the like, which are not followed."""

import sys
from functools import lru_cache
from types import BuiltinFunctionType, MethodWrapperType, ModuleType
from typing import Any

import torch

from symplectic_adjoint.field.held_values import is_kind, own_attributes
from symplectic_adjoint.field.watched_values import SCALARS

BOUND = (BuiltinFunctionType, MethodWrapperType)
"""The types of functions written in C, which may be bound to an object."""

OPAQUE = (*SCALARS, type(None), torch.dtype, torch.device, torch.Generator, *BOUND, slice, range)
"""The types of values that hold no others, or only the object that they are bound to."""

CACHED = type(lru_cache(len))
"""The type of a function whose values functools keeps."""

_HOLDS_VALUES = ("types", "argparse")
"""Modules of the standard library whose objects hold values of the caller's: SimpleNamespace and Namespace."""

_LIBRARIES = frozenset(sys.stdlib_module_names) - {"__main__"} | {"torch", "numpy", "scipy", "symplectic_adjoint"}


def is_library_name(module_name: Any) -> bool:
    """Return whether a module of this name is Python's, torch's or the like."""
    return is_kind(module_name, str) and module_name.partition(".")[0] in _LIBRARIES


def own_class(kind: type) -> type | None:
    """Return the class of the user's from which torch derived this one (parametrizations), or which it is, if any."""
    return next((base for base in kind.__mro__ if not is_library_name(base.__module__)), None)


def is_library_value(x: Any) -> bool:
    """Return whether an object, a class or a Python module is of a library, and holds no values of the user's."""
    if is_kind(x, ModuleType):
        return is_library_name((own_attributes(x) or {}).get("__name__"))
    kind = x if is_kind(x, type) else type(x)
    kind = own_class(kind) or kind
    return is_library_name(kind.__module__) and kind.__module__ not in _HOLDS_VALUES
