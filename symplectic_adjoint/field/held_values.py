"""What the caller's containers, objects and classes hold, by key, as far as func may read it."""

from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Mapping
from types import MappingProxyType, MemberDescriptorType
from typing import Any

from symplectic_adjoint.field.code_names import is_library_name

SEQUENCES = (list, deque, UserList, set, frozenset)
MAPPINGS = (dict, UserDict, ChainMap, MappingProxyType)
CONTAINERS = (*SEQUENCES, *MAPPINGS)

COMPUTED_NAMES = frozenset(
    {
        *("getattr", "vars", "__dict__", "attrgetter"),
        *("_parameters", "_buffers", "_modules", "get_parameter", "get_buffer", "get_submodule", "state_dict"),
        *("parameters", "buffers", "modules", "children"),
        *("named_parameters", "named_buffers", "named_modules", "named_children"),
    }
)
"""The names by which code reaches attributes that it does not name."""


def entries_of(x: Any, names: frozenset[str] = frozenset()) -> Mapping[Any, Any]:
    """Return the entries of a container that func may read: of a dict those that its code names, if it does."""
    if isinstance(x, SEQUENCES):
        return dict(enumerate(x))
    return {key: value for key, value in x.items() if isinstance(key, str) and key in names} or x


def named_attributes_of(x: Any, names: frozenset[str]) -> Mapping[str, Any]:
    """Return the attributes of an object, class or Python module with these names; of a class, no functions."""
    if not isinstance(x, type):
        own = {key: value for key, value in getattr(x, "__dict__", {}).items() if key in names}
        return own | {key: getattr(x, key) for key in _slots(type(x)) if key in names and hasattr(x, key)}
    bases = [vars(base) for base in reversed(x.__mro__) if not is_library_name(base.__module__)]
    return {
        key: value
        for base in bases
        for key, value in base.items()
        if key in names and not (callable(value) or hasattr(value, "__get__") or key.startswith("__"))
    }


def other_attributes_of(x: Any, names: frozenset[str]) -> Mapping[str, Any]:
    """Return the attributes of an object that have other names than these."""
    own = {key: value for key, value in getattr(x, "__dict__", {}).items() if key not in names}
    return own | {key: getattr(x, key) for key in _slots(type(x)) if key not in names and hasattr(x, key)}


def _slots(kind: type) -> list[str]:
    """Return the attributes that objects of a class hold without a dict, as __slots__ declares."""
    bases = [base for base in kind.__mro__ if "__slots__" in vars(base)]
    return [key for base in bases for key, value in vars(base).items() if isinstance(value, MemberDescriptorType)]
