"""Checkpoint schedules: which states to keep when not all of them fit, and from which to recompute.

A step is reversed from its start. With the start of the solve and up to c more states held, reversing n steps takes at
least advances(n, c) forward steps, including the forward pass (Griewank and Walther, ACM Trans. Math. Softw. 26, 2000,
Algorithm 799: revolve; their number of checkpoints includes the start of the solve). If the number of steps is unknown,
the solve keeps states by level (Wang, Moin and Iaccarino, SIAM J. Sci. Comput. 31, 2009), so that no step is taken more
often than necessary.
"""

from collections.abc import Iterator
from itertools import count
from math import comb


def reach(capacity: int, repetitions: int) -> int:
    """Return how many steps can be reversed if no step is taken forward more than `repetitions` times."""
    return comb(capacity + 1 + repetitions, repetitions) if repetitions >= 0 else 0


def repetitions(steps: int, capacity: int) -> int:
    """Return the least r such that `steps` steps can be reversed with no step taken forward more than r times."""
    return next(r for r in count() if reach(capacity, r) >= steps)


def advances(steps: int, capacity: int) -> int:
    """Return the least number of forward steps that reverse `steps` steps, including the first pass.

    The first pass is counted up to the start of the last step: it takes steps - 1 of them.
    """
    r = repetitions(steps, capacity)
    return r * steps - reach(capacity + 1, r - 1)


def stride(steps: int, capacity: int) -> int:
    """Return how many steps to take before keeping the next state; all but the last if the capacity is 0."""
    if capacity == 0:
        return steps - 1
    r = repetitions(steps, capacity)
    return max(1, reach(capacity, r - 2), steps - reach(capacity - 1, r))


def checkpoint_steps(steps: int, capacity: int) -> Iterator[int]:
    """Yield the steps after the first whose starts the forward pass keeps if it knows the number of steps."""
    at = 0
    for left in range(capacity, 0, -1):
        if steps - at < 2:
            return
        at += stride(steps - at, left)
        yield at


class OnlineCheckpoints:
    """A checkpoint schedule for an unknown number of steps: admits every start, and says which one to evict for it.

    The newest checkpoint with a lower level than some later one is evicted, and the new start enters at level 0. If
    there is none, the new start replaces the last checkpoint, one level up.
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._levels: list[int] = []

    def admit(self) -> int | None:
        """Admit the next start; return the index (0 is the oldest) of the checkpoint to evict, None if none must go."""
        if len(self._levels) < self._capacity:
            self._levels.append(0)
            return None
        for i in reversed(range(self._capacity - 1)):
            if self._levels[i] < max(self._levels[i + 1 :]):
                del self._levels[i]
                self._levels.append(0)
                return i
        self._levels[-1] += 1
        return self._capacity - 1
