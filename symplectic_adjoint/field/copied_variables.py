"""The caller's variables that copies of functions hold: an assignment during the solve reaches the copies.

Callbacks, an event function and the like run between the calls of func, and may assign a variable that func reads.
Afterwards the copies keep what the variables held at the end of the solve, whatever the caller assigns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from types import CellType
from typing import Any

from symplectic_adjoint.errors import FunctionChanged, NotCapturable, UnsupportedCombination
from symplectic_adjoint.field.watched_values import same_value

_UNSET: Any = object()


class CopiedVariables:
    """Variables of the caller, each with the copy that a solve reads.

    assigned: the names of those that were assigned during the solve, between two calls of func.
    """

    def __init__(self) -> None:
        self.assigned: list[str] = []
        self.is_followed = False
        """Whether assignments reach the copies at present."""
        self._cells: list[tuple[CellType, CellType]] = []
        self._globals: list[tuple[dict[str, Any], str, dict[str, Any]]] = []
        self._names: list[str] = []
        """Those of the cells."""
        self._seen: list[Any] = []
        """What the caller's variables held when they were read last."""

    def add_cell(self, name: str, caller: CellType, copy: CellType) -> None:
        """Add a closure variable."""
        self._cells.append((caller, copy))
        self._names.append(name)

    def add_global(self, caller: dict[str, Any], name: str, copy: dict[str, Any]) -> None:
        """Add a global."""
        self._globals.append((caller, name, copy))

    def note(self) -> None:
        """Note what the variables hold, which the copies have."""
        self._seen = self._read()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Let `pull` copy what is assigned."""
        was, self.is_followed = self.is_followed, bool(self._seen)
        try:
            yield
        finally:
            self.is_followed = was

    @contextmanager
    def followed_for_now(self) -> Iterator[None]:
        """Let `pull` copy what is assigned from now on; at the end let the copies hold what they hold now."""
        held, assigned = self._held(), list(self.assigned)
        self.note()
        try:
            with self.followed():
                yield
        finally:
            for i, value in enumerate(held):
                self._put(i, value)
            self.assigned[:] = assigned

    def pull(self) -> bool:
        """Copy the variables that were assigned since they were read last; return whether there are any."""
        now = self._read()
        if all(map(is_, now, self._seen)):
            return False
        changed = self._changed(now)
        for i in changed:
            self._put(i, now[i])
        self.assigned += [name for name in map(self._name, changed) if name not in self.assigned]
        self._seen = now
        return bool(changed)

    def follow(self, *, compiled: bool, captured: bool) -> None:
        """Let func read what callbacks and the like have assigned; raise an error if kept code would run instead."""
        if not self.pull():
            return
        found = f"{', '.join(self.assigned)}, which func reads, was assigned in the solve"
        advice = "let func compute it from t, or leave"
        if captured:
            raise NotCapturable(f"capture=True: {found}: {advice} capture out")
        if compiled:
            raise UnsupportedCombination(f"compile=True: {found}: {advice} compile out")

    def require_seen(self) -> None:
        """Raise UnsupportedCombination if a variable was assigned during the call of func that has just ended.

        What func itself assigns, as far as its code shows, is not copied.
        """
        now = self._read()
        if all(map(is_, now, self._seen)):
            return
        if names := ", ".join(map(self._name, self._changed(now))):
            raise UnsupportedCombination(
                f"{names}, which func reads, was assigned during a call of func, by code that the library "
                "cannot find from func: func may have read the value before that. Hold it in an attribute, a list or "
                "a dict instead of a variable"
            )

    def require_none_assigned(self) -> None:
        """Raise FunctionChanged if a variable was assigned during the solve, which therefore cannot be repeated."""
        if self.assigned:
            raise FunctionChanged(
                f"{', '.join(self.assigned)}, which func reads, was assigned during the solve, by a callback, an "
                "event function or the like, which is not called again when steps are repeated: let func compute the "
                'value from t, or use gradient="backprop", which repeats no step unless the solve stops early'
            )

    def _read(self) -> list[Any]:
        try:
            held = [caller.cell_contents for caller, _ in self._cells]
        except ValueError:  # one has been deleted
            held = [_contents(caller) for caller, _ in self._cells]
        return held + [own.get(name, _UNSET) for own, name, _ in self._globals]

    def _changed(self, now: list[Any]) -> list[int]:
        """Return which variables hold another value than they did when they were read last."""
        pairs = enumerate(zip(now, self._seen, strict=True))
        return [i for i, (value, before) in pairs if not same_value(before, value)]

    def _held(self) -> list[Any]:
        return [_contents(copy) for _, copy in self._cells] + [x.get(name, _UNSET) for _, name, x in self._globals]

    def _name(self, i: int) -> str:
        return self._names[i] if i < len(self._names) else self._globals[i - len(self._names)][1]

    def _put(self, i: int, value: Any) -> None:
        """Let the copy of a variable hold a value, or none."""
        if i < len(self._cells):
            copy = self._cells[i][1]
            if value is not _UNSET:
                copy.cell_contents = value
            elif _contents(copy) is not _UNSET:
                del copy.cell_contents
            return
        _, name, namespace = self._globals[i - len(self._cells)]
        if value is _UNSET:
            namespace.pop(name, None)
        else:
            namespace[name] = value


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _UNSET
