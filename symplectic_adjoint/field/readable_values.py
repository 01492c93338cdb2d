"""What the caller's containers, objects and classes hold, by key, as far as func may read it."""

from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from symplectic_adjoint.field.held_values import PLAIN_KEYS, is_kind, items_of, own_attributes, slots
from symplectic_adjoint.field.libraries import is_library_name

COMPUTED_NAMES = frozenset(
    {
        *("getattr", "vars", "__dict__", "attrgetter"),
        *("_parameters", "_buffers", "_modules", "get_parameter", "get_buffer", "get_submodule", "state_dict"),
        *("parameters", "buffers", "modules", "children"),
        *("named_parameters", "named_buffers", "named_modules", "named_children"),
    }
)
"""The names by which code reaches attributes that it does not name."""

MAPPINGS = (dict, UserDict, ChainMap, MappingProxyType)
CONTAINERS = (list, deque, UserList, set, frozenset, *MAPPINGS)


def entries_of(x: Any, names: frozenset[str] = frozenset()) -> Mapping[Any, Any]:
    """Return the entries of a container that func may read: of a mapping those that its code names, if it does.

    A set has no order, and a change elsewhere in it may move an entry: its entries are their own keys.
    """
    if is_kind(x, (set, frozenset)):
        return {value if type(value) in PLAIN_KEYS else id(value): value for value in _sequence(x)}
    if not is_kind(x, MAPPINGS):
        return dict(enumerate(_sequence(x)))
    entries = _mapping(x)
    return {key: value for key, value in entries.items() if is_kind(key, str) and key in names} or entries


def _sequence(x: Any) -> list[Any]:
    for kind in (list, deque, set, frozenset):
        if is_kind(x, kind):
            return list(kind.__iter__(x))
    return _sequence((own_attributes(x) or {}).get("data", []))


def _mapping(x: Any) -> Mapping[Any, Any]:
    if is_kind(x, dict):
        return items_of(x)
    if is_kind(x, MappingProxyType):
        return {key: x[key] for key in x}
    own = own_attributes(x) or {}
    maps = own.get("maps", []) if is_kind(x, ChainMap) else [own.get("data", {})]
    return {key: value for one in reversed(maps) if is_kind(one, dict) for key, value in items_of(one).items()}


def named_attributes_of(x: Any, names: frozenset[str]) -> Mapping[str, Any]:
    """Return the attributes of an object, class or Python module with these names; of a class, no functions."""
    if not is_kind(x, type):
        return {key: value for key, value in _held(x).items() if key in names}
    bases = [vars(base) for base in reversed(x.__mro__) if not is_library_name(base.__module__)]
    return {
        key: value
        for base in bases
        for key, value in base.items()
        if key in names and not (callable(value) or hasattr(type(value), "__get__") or key.startswith("__"))
    }


def other_attributes_of(x: Any, names: frozenset[str]) -> Mapping[str, Any]:
    """Return the attributes of an object that have other names than these."""
    return {key: value for key, value in _held(x).items() if key not in names}


def _held(x: Any) -> dict[str, Any]:
    return (own_attributes(x) or {}) | slots(x)
