"""Values that the caller holds, looked at without running the caller's code.

isinstance and getattr call __class__, __getattr__ and properties, which may raise (a weak proxy to an object that is
gone), load something, or wait for a device.
"""

from collections.abc import Mapping
from types import MemberDescriptorType
from typing import Any
from weakref import ProxyTypes

PLAIN_KEYS = (bool, int, float, complex, str, bytes, type(None))


def is_kind(x: Any, kind: type | tuple[type, ...]) -> bool:
    """Return whether x is of a class, or of one of a tuple of classes, whatever it says that it is."""
    return issubclass(type(x), kind)


def referent(x: Any) -> Any:
    """Return the object to which x refers if x is a weak proxy, None if that is gone; otherwise x."""
    if not is_kind(x, ProxyTypes):
        return x
    try:
        return x.__sizeof__.__self__  # a method is bound to the object itself
    except Exception:  # it is gone, or looked up in a way of its own
        return None


def own_attributes(x: Any) -> dict[str, Any] | None:
    """Return the dict of an object's own attributes; None if it has none."""
    try:
        own = object.__getattribute__(x, "__dict__")
    except Exception:
        return None
    return own if is_kind(own, dict) else None


def slots(x: Any) -> dict[str, Any]:
    """Return the attributes that an object holds without a dict, as __slots__ declares."""
    held = {}
    for base in type(x).__mro__:
        if "__slots__" in vars(base):
            for key, member in vars(base).items():
                if is_kind(member, MemberDescriptorType):
                    try:
                        held[key] = member.__get__(x)
                    except Exception:  # not set
                        continue
    return held


def items_of(x: Any) -> Mapping[Any, Any]:
    """Return the entries of a list or dict by index or key, whatever its class makes of them."""
    return dict(dict.items(x)) if is_kind(x, dict) else dict(enumerate(list.__iter__(x)))


def count_of(x: Any) -> int:
    """Return how many entries a list or dict has."""
    return dict.__len__(x) if is_kind(x, dict) else list.__len__(x)


def shown_key(key: Any) -> Any:
    """Return a key, or what stands for it in a message: writing a tensor waits for its device."""
    return key if is_kind(key, PLAIN_KEYS) else _Unwritten(key)


class _Unwritten:
    def __init__(self, key: Any):
        self._kind = type(key).__name__

    def __repr__(self) -> str:
        return f"<{self._kind}>"
