"""The recorded programs of all functions, kept from one solve to the next.

They lie outside of the user's modules, where deepcopy and pickle would meet them, and are freed with the function that
they were recorded from. A solve borrows programs: two solves at a time, nested or in two threads, never share any.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

P = TypeVar("P")

MOST_PER_FUNCTION = 8
"""The most sets of programs kept for one function."""

MOST = 32
"""The most sets of programs kept in all."""


class ProgramTable(Generic[P]):
    """Sets of programs, by the function that they were recorded from and a key. The least recently used go first."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Any, list[tuple[int, Any, P]]] = WeakKeyDictionary()
        self._made: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._lock = Lock()
        self._uses = 0

    def borrow(self, owner: Any, key: Any, make: Callable[[], P], *, counts: bool = True) -> P:
        """Return a set of programs that nobody else uses; make one if there is none. Give it back after use.

        counts: whether this is one of the uses that made_in_a_row counts.
        """
        with self._lock:
            kept = self._kept.get(owner, [])
            for i in reversed(range(len(kept))):
                if kept[i][1] == key:
                    self._made[owner] = 0 if counts else self._made.get(owner, 0)
                    return kept.pop(i)[2]
            self._made[owner] = self._made.get(owner, 0) + counts
        return make()

    def made_in_a_row(self, owner: Any) -> int:
        """Return how many sets were made for a function since one was last used again."""
        with self._lock:
            return self._made.get(owner, 0)

    def last_key(self, owner: Any) -> Any:
        """Return the key of the set that was used last; None if there is none."""
        with self._lock:
            kept = self._kept.get(owner)
            return kept[-1][1] if kept else None

    def give_back(self, owner: Any, key: Any, programs: P) -> None:
        """Keep a set of programs for the next solve."""
        with self._lock:
            self._uses += 1
            kept = self._kept.setdefault(owner, [])
            kept.append((self._uses, key, programs))
            dropped = [kept.pop(0)] if len(kept) > MOST_PER_FUNCTION else []
            everyone = list(self._kept.values())
            if sum(map(len, everyone)) > MOST:
                dropped.append(min((x for x in everyone if x), key=lambda x: x[0][0]).pop(0))
        del dropped  # freed without the lock: freeing tensors may run other code

    def forget(self, owner: Any) -> None:
        """Free the programs that were recorded from a function."""
        with self._lock:
            dropped = self._kept.pop(owner, None)
        del dropped

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._kept.values()))
