"""Places that hold a value by name, other than dicts: cells, tuples and default arguments of copied functions."""

from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, Protocol


class Holder(Protocol):
    """Anything that holds values by key and can be written to, such as a dict."""

    def get(self, key: Any, /) -> Any:
        """Return the value under key, None if there is none."""
        ...

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


Place = tuple[Holder, Any]
"""A holder and the key of a value in it."""


class CellHolder:
    """The cell of a closure, which holds one variable, whatever the key."""

    def __init__(self, cell: CellType):
        self._cell = cell

    def get(self, key: Any) -> Any:
        del key
        return self._cell.cell_contents

    def __setitem__(self, key: Any, value: Any) -> None:
        del key
        self._cell.cell_contents = value


class TupleHolder:
    """A tuple at a place. Writing to it puts a new tuple there. outer: the holder of the tuple."""

    def __init__(self, place: Place):
        self.outer, self._key = place

    def get(self, key: int) -> Any:
        return self.outer.get(self._key)[key]

    def __setitem__(self, key: int, value: Any) -> None:
        items = list(self.outer.get(self._key))
        items[key] = value
        self.outer[self._key] = tuple_like(self.outer.get(self._key), items)


class DefaultsHolder:
    """The positional default arguments of a function."""

    def __init__(self, function: FunctionType):
        self._function = function

    def get(self, key: int) -> Any:
        return (self._function.__defaults__ or ())[key]

    def __setitem__(self, key: int, value: Any) -> None:
        items = list(self._function.__defaults__ or ())
        items[key] = value
        self._function.__defaults__ = tuple(items)


class BoundPartial:
    """A functools.partial whose arguments can be replaced."""

    def __init__(self, func: Callable[..., Any], args: list[Any], keywords: dict[str, Any]):
        self.func, self.args, self.keywords = func, args, keywords

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.func(*self.args, *args, **{**self.keywords, **keywords})


class ListHolder:
    """A list."""

    def __init__(self, items: list[Any]):
        self._items = items

    def get(self, key: int) -> Any:
        return self._items[key]

    def __setitem__(self, key: int, value: Any) -> None:
        self._items[key] = value


def tuple_like(x: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    """Return a tuple of x's type, which may be a named tuple, with other items."""
    return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
