"""Values in the caller's containers and objects, which are neither copied nor put back: a change of one is found."""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

from torch import Tensor

from symplectic_adjoint.field.held_values import is_kind, shown_key

SCALARS = (bool, int, float, complex, str, bytes)
"""The types of values that are compared by value."""

MOST_WATCHED = 256
"""The most entries of one container that are watched: a longer one is a log or a data set."""


class WatchedValues:
    """The values that one list, dict or object held when this object was made. Tensors are not kept alive.

    name: the expression by which func reaches it. read: returns the values that func may read there, by key. form: the
    expression for one of them, such as "{}[{!r}]".
    """

    def __init__(self, name: str, read: Callable[[], Mapping[Any, Any]], form: str):
        self._name, self._read, self._form = name, read, form
        self._held = {key: ref(x) if is_kind(x, Tensor) else x for key, x in read().items()}

    @property
    def held(self) -> Mapping[Any, Any]:
        """The values that are watched, by key; for a tensor a reference to it."""
        return self._held

    def path_of(self, key: Any) -> str:
        """Return the expression by which func reaches a value."""
        return self._form.format(self._name, shown_key(key))

    def forget_changed(self) -> None:
        """Stop watching the values that have changed: func itself changed them during the solve."""
        now = self._read()
        self._held = {key: x for key, x in self._held.items() if key in now and _same(x, now[key])}

    def changed(self) -> str | None:
        """Return the name of a value that is another one now; None if there is none."""
        now = self._read()
        for key, x in self._held.items():
            if key not in now or not _same(x, now[key]):
                return self.path_of(key)
        return None


def _same(held: Any, now: Any) -> bool:
    if is_kind(now, Tensor):
        return is_kind(held, ref) and held() is now
    return same_value(held, now)


def same_value(a: Any, b: Any) -> bool:
    """Return whether two values are one object, or equal numbers or strings of one type."""
    return a is b or (type(a) is type(b) and is_kind(a, SCALARS) and (a == b or a != a))
