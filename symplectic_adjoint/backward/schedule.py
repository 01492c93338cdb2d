"""Which states to keep when not all of them may be kept, and from which of them to take steps again.

To reverse n steps from a start that is held, with room for c more states, at least advances(n, c) steps have to be
taken again (Griewank and Walther, ACM Trans. Math. Softw. 26, 2000, Algorithm 799: revolve; their number of
checkpoints counts the start too). A solve that does not know how many steps it will take keeps states by levels (Wang,
Moin and Iaccarino, SIAM J. Sci. Comput. 31, 2009), so that no step is taken more often than it must.
"""

from collections.abc import Iterator
from itertools import count
from math import comb


def reach(room: int, repetitions: int) -> int:
    """How many steps can be reversed if none of them is taken again more often than that."""
    return comb(room + 1 + repetitions, repetitions) if repetitions >= 0 else 0


def repetitions(steps: int, room: int) -> int:
    """How often some step has to be taken again, at least."""
    return next(r for r in count() if reach(room, r) >= steps)


def advances(steps: int, room: int) -> int:
    """The fewest steps taken again, the first pass over all but the last step included."""
    r = repetitions(steps, room)
    return r * steps - reach(room + 1, r - 1)


def stride(steps: int, room: int) -> int:
    """How many of the steps to take before the next state is kept; up to the last step where there is no room."""
    if room == 0:
        return steps - 1
    r = repetitions(steps, room)
    return max(1, reach(room, r - 2), steps - reach(room - 1, r))


def kept_states(steps: int, room: int) -> Iterator[int]:
    """The steps whose starts to keep on the way there, the first one's aside, where their number is known."""
    at = 0
    for left in range(room, 0, -1):
        if steps - at < 2:
            return
        at += stride(steps - at, left)
        yield at


class OnlineCheckpoints:
    """The same where it is not known: told of each start in turn, it says which one of those kept to give up.

    A start is given up for a later one once another after it has a higher level. Where there is none, the newest
    start takes the last one's place, one level up.
    """

    def __init__(self, room: int):
        self._room = room
        self._levels: list[int] = []

    def replaced(self) -> int | None:
        """The place, counted from the oldest, of what the next start is kept instead of; None while there is room."""
        if len(self._levels) < self._room:
            self._levels.append(0)
            return None
        place = next((i for i in range(self._room - 2, -1, -1) if self._levels[i] < max(self._levels[i + 1 :])), None)
        if place is None:
            self._levels[-1] += 1
            return self._room - 1
        del self._levels[place]
        self._levels.append(0)
        return place
