"""Where func can keep values from one call to the next: attributes, variables, lists and dicts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CellType
from typing import Any, Protocol

from symplectic_adjoint.field.held_values import count_of, is_kind, items_of, own_attributes
from symplectic_adjoint.field.watched_values import MOST_WATCHED


class Store(Protocol):
    """Values by key, which func can assign. form: how func writes one of them, such as "func.net.{}"."""

    form: str

    def read(self) -> dict[Any, Any]:
        """Return the values that are held now."""
        ...

    def get(self, key: Any) -> Any:
        """Return one of them."""
        ...

    def put(self, key: Any, value: Any) -> None:
        """Set one of them."""
        ...

    def default(self, key: Any) -> Any:
        """Return what func reads where none is held; None if nothing."""
        ...


class Attributes:
    """The attributes of an object."""

    def __init__(self, path: str, owner: Any):
        self.form, self._owner, self._held = f"{path}.{{}}", owner, own_attributes(owner) or {}

    @property
    def holder(self) -> dict[str, Any]:
        """The object's dict."""
        return self._held

    def read(self) -> dict[Any, Any]:
        return dict(self._held)

    def get(self, key: Any) -> Any:
        return self._held[key]

    def put(self, key: Any, value: Any) -> None:
        self._held[key] = value

    def default(self, key: Any) -> Any:
        return getattr(type(self._owner), key, None)  # a count may start on the class


class Entries:
    """The entries of a list or dict; of a long one, a log perhaps, only how many there are."""

    def __init__(self, path: str, held: list[Any] | dict[Any, Any]):
        self.form, self._held = f"{path}[{{!r}}]", held

    def __len__(self) -> int:
        return count_of(self._held)

    def from_the_end(self) -> Iterator[tuple[Any, Any]]:
        """Yield keys and values, those that were added last first."""
        held: Any = self._held
        if is_kind(held, dict):
            return reversed(dict.items(held))
        return ((i, list.__getitem__(held, i)) for i in reversed(range(count_of(held))))

    def read(self) -> dict[Any, Any]:
        count = count_of(self._held)
        return {len: count} if count > MOST_WATCHED else dict(items_of(self._held))

    def get(self, key: Any) -> Any:
        return self._held[key]

    def put(self, key: Any, value: Any) -> None:
        self._held[key] = value

    def default(self, key: Any) -> Any:
        del key


class Variables:
    """Closure variables, or globals, that func assigns."""

    def __init__(self, cells: Iterable[tuple[str, CellType]] = (), names: Iterable[tuple[str, dict[str, Any]]] = ()):
        self.form, self._cells, self._globals = "{}", dict(cells), dict(names)

    def read(self) -> dict[Any, Any]:
        found = {key: x for key, cell in self._cells.items() for x in _contents(cell)}
        return found | {key: own[key] for key, own in self._globals.items() if key in own}

    def get(self, key: Any) -> Any:
        return self._cells[key].cell_contents if key in self._cells else self._globals[key][key]

    def put(self, key: Any, value: Any) -> None:
        if key in self._cells:
            self._cells[key].cell_contents = value
        else:
            self._globals[key][key] = value

    def default(self, key: Any) -> Any:
        del key


def _contents(cell: CellType) -> Iterator[Any]:
    """Yield what a cell holds, if the variable has a value."""
    try:
        yield cell.cell_contents
    except ValueError:
        return


Changed = Callable[[Any, Any], bool]


def changes(before: Sequence[dict[Any, Any]], stores: Sequence[Store], same: Changed) -> Iterator[tuple[Store, Any]]:
    """Yield the store and the key of every value that was set, added or removed since `before` was read."""
    for held, store in zip(before, stores, strict=True):
        now = store.read()
        for key in now.keys() | held.keys():
            if key not in now or key not in held or not same(held[key], now[key]):
                yield store, key
