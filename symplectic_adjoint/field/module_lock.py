"""One solve at a time for each module and parameter, because a sweep replaces a module's parameters by aliases.

A solve locks everything that it touches at once, so that there is no order in which to lock. A thread never excludes
itself. Nor does it exclude the backward pass, in any thread, of a solve that it made inside func: autograd runs that on
a thread of the device, while this one waits for it.

Why no two threads wait for each other for ever. A pass that has replaced nothing *suspends* its locks while it waits:
others may take them, and it goes on once everything is its own again. So only a pass that has replaced something is
waited for while it waits itself, and such a pass does not wait: if func solved with modules of its own, or beside other
threads, in the forward pass, the backward pass replaces no parameters. The locks do not know of a thread that waits for
something else, such as the end of a thread that func started. If a holder that has replaced nothing stands still,
others share its locks; all of them see the same parameters, as they would without locks. What is left, a func that
waits in the backward pass only, ends in a SolverError.

Code of the user's that lists a module's parameters takes no lock. While another thread that has solved lives, no sweep
replaces any, and forms the sums in a second tensor of the size of theta.
"""

import os
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import Condition, RLock, get_ident
from time import monotonic
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn

from symplectic_adjoint.errors import SolverError

LOOK_S = 0.01
"""How often a waiting thread looks what the others are doing."""
STILL_S = 1.0
"""How long a thread is at one instruction until it counts as standing still: no operation of func takes as long."""
BLOCKED_S = 0.03
"""The same for an instruction of threading (join, Event, Future, Queue) or of autograd's engine."""
GIVE_UP_S = 120.0
"""How long to wait for a thread that stands still and has replaced parameters."""

_WAITING_FILES = {threading.__file__, torch.autograd.graph.__file__}

_NUMBERS = count()


class ModuleLock:
    """The lock of some modules and tensors, reentrant, and to be taken by any number of threads in turn."""

    def __init__(self, modules: Sequence[Any], tensors: Sequence[Tensor], *, innermost: bool):
        self.may_wait = False
        """Whether a pass under this lock may have to wait for others. It then replaces no parameters."""
        self._modules, self._tensors = modules, tensors
        self._locks_nothing = not (modules or tensors)
        self._innermost = innermost
        self._ids: frozenset[int] | None = None
        self._first_thread = 0
        """The thread that took this lock first, in the forward pass."""
        self._within: frozenset[int] | None = None
        """The numbers of what the thread held that took this lock first: for a solve inside func, the outer one's."""

    @property
    def ids(self) -> frozenset[int]:
        """What is locked, made when two locks are first compared, since most never are.

        No two threads share a tensor that is not a leaf, and func may make one for each solve.
        """
        if self._ids is None:
            self._ids = frozenset(map(id, (*self._modules, *(x for x in self._tensors if x.grad_fn is None))))
        return self._ids

    def __enter__(self) -> Self:
        if self._locks_nothing:
            return self
        with _GUARD:
            _TABLE.take(_Holding(self, get_ident()))
        return self

    def __exit__(self, *error: object) -> None:
        if not self._locks_nothing:
            with _GUARD:
                _TABLE.release(self._holding())

    def enter_within(self, mine: "list[_Holding]", thread: int) -> None:
        """Record what the thread holds that takes this lock, and that the outer passes may have to wait in this one."""
        if self._innermost:
            return
        if self._within is None:
            _TABLE.threads.add(thread)
            self._first_thread = thread
            self._within = frozenset([h.number for h in mine])
        if not mine or mine[-1].lock is self:
            return
        if not self.ids.issubset(frozenset().union(*(h.lock.ids for h in mine))):
            for h in mine:
                h.lock.may_wait = True

    def is_within(self, holding: "_Holding") -> bool:
        """Return whether the solve of this lock was made inside func by the holder, who waits for it."""
        return self._within is not None and holding.number in self._within

    def try_replace(self) -> bool:
        """Return whether parameters may be replaced until the lock, which this thread holds, is released."""
        if self._locks_nothing:
            return True
        with _GUARD:
            holding = self._holding()
            if self.may_wait or _TABLE.other_threads_solve(self._first_thread) or _TABLE.blockers(holding, self.ids):
                return False
            holding.replaces = True
            return True

    def mark_replaced(self) -> None:
        """Record that this thread, which holds the lock, changes something that other threads would see."""
        if not self._locks_nothing:
            with _GUARD:
                self._holding().replaces = True

    def _holding(self) -> "_Holding":
        held, thread = _TABLE.held, get_ident()
        i = len(held) - 1
        while held[i].lock is not self or held[i].thread != thread:
            i -= 1
        return held[i]


class _Holding:
    """A lock that a thread has taken, or waits to take."""

    __slots__ = ("lock", "number", "replaces", "suspended", "thread")

    def __init__(self, lock: ModuleLock, thread: int):
        self.lock, self.thread, self.number = lock, thread, next(_NUMBERS)
        self.replaces = False
        """Whether the thread has replaced something that others would see."""
        self.suspended = False
        """Whether the thread waits, and others may take the lock meanwhile."""


class _Table:
    """The locks taken in this process. Its methods are called inside `with _GUARD`."""

    def __init__(self) -> None:
        self.held: list[_Holding] = []
        self.threads: set[int] = set()
        """The threads that have solved."""
        self._queue: list[_Holding] = []
        """The locks that threads wait for, the longest wait first."""
        self._changed = Condition(_GUARD)

    def take(self, new: _Holding) -> None:
        """Take a lock, if necessary after a wait."""
        held = self.held
        mine = [h for h in held if h.thread == new.thread and not h.suspended] if held else held
        if len(mine) < len(held) or self._queue:
            self._wait_for_turn(new, mine)
        new.lock.enter_within(mine, new.thread)
        held.append(new)

    def release(self, holding: _Holding) -> None:
        """Release a lock, and let those who wait look again."""
        self.held.remove(holding)
        if self._queue:
            self._changed.notify_all()

    def blockers(self, new: _Holding, wanted: frozenset[int]) -> list[_Holding]:
        """Return what other threads hold of `wanted`."""
        others = (h for h in self.held if h.thread != new.thread and not h.suspended)
        return [h for h in others if not wanted.isdisjoint(h.lock.ids) and not new.lock.is_within(h)]

    def other_threads_solve(self, forward: int) -> bool:
        """Return whether another thread that has solved lives: it may list the parameters of a module at any time.

        forward: the thread of the forward pass. If autograd's own thread asks, that one waits for it.
        """
        me = get_ident()
        if not self.threads - {me, forward} and (forward == me or forward not in self.threads):
            return False
        of_python = _python_threads()
        self.threads &= {*of_python, me}
        return not self.threads <= ({me} if me in of_python else {me, forward})

    def _wait_for_turn(self, new: _Holding, mine: list[_Holding]) -> None:
        wanted = new.lock.ids.difference(*(h.lock.ids for h in mine))
        fresh = not mine and not any(new.lock.is_within(h) for h in self.held)
        if not self._must_wait(new, wanted, fresh):
            return
        self._queue.append(new)
        watch = _Watch()
        with self._suspended([h for h in mine if not h.replaces]) as suspended:
            wanted = wanted.union(*(h.lock.ids for h in suspended))
            try:
                while self._must_wait(new, wanted, fresh):
                    if self._shared(new, mine, wanted, watch):
                        break
                    self._changed.wait(LOOK_S)
            finally:
                self._queue.remove(new)
                self._changed.notify_all()

    def _must_wait(self, new: _Holding, wanted: frozenset[int], fresh: bool) -> bool:
        """Return whether others hold some of `wanted` or, if nobody can wait for this thread (fresh), wait longer."""
        if self.blockers(new, wanted):
            return True
        if not fresh:
            return False
        earlier = self._queue[: self._queue.index(new)] if new in self._queue else self._queue
        return any(not wanted.isdisjoint(h.lock.ids) for h in earlier)

    def _shared(self, new: _Holding, mine: list[_Holding], wanted: frozenset[int], watch: "_Watch") -> bool:
        """Return whether every holder shares its lock, because it stands still and has replaced nothing.

        Raises SolverError if one that has replaced parameters does not move for a long time.
        """
        blockers = self.blockers(new, wanted)
        still = watch.look({h.thread for h in blockers})
        if any(h.replaces and still[h.thread] > GIVE_UP_S for h in blockers):
            raise SolverError(
                f"this solve has waited {GIVE_UP_S:g} s for a backward pass in another thread, which does not move: "
                "func seems to wait there for a thread, or to solve with other modules, although it did neither in "
                'the forward pass: use gradient="backprop"'
            )
        if not blockers or any(h.replaces for h in blockers):
            return False
        if not all(h.lock.may_wait or watch.stands_still(h.thread) for h in blockers):
            return False
        for h in (new, *mine, *blockers):
            h.lock.may_wait = True
        return True

    @contextmanager
    def _suspended(self, holdings: list[_Holding]) -> Iterator[list[_Holding]]:
        """Let others take these locks meanwhile."""
        suspended = [h for h in holdings if not h.suspended]
        for h in suspended:
            h.suspended = True
        if suspended:
            self._changed.notify_all()
        try:
            yield suspended
        finally:
            for h in suspended:
                h.suspended = False


def _python_threads() -> set[int | None]:
    """Return the threads that live, without those that autograd started, to which Python gives names of this kind."""
    return {x.ident for x in threading.enumerate() if not x.name.startswith("Dummy-")}


def runs_in_another_thread(threads: Collection[int]) -> bool:
    """Return whether this code runs in a thread of Python other than those given: not in one of autograd's."""
    return get_ident() not in threads and get_ident() in _python_threads()


class _Watch:
    """Where other threads are in their code, and since when."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[FrameType | None, int, float]] = {}

    def look(self, threads: set[int]) -> dict[int, float]:
        """Return for how many seconds each thread has been at the instruction where it is now."""
        frames, now = sys._current_frames(), monotonic()
        for thread in threads:
            frame = frames.get(thread)
            at = -1 if frame is None else frame.f_lasti
            before = self._seen.get(thread)
            if before is None or before[0] is not frame or before[1] != at:
                self._seen[thread] = frame, at, now
        return {thread: now - self._seen[thread][2] for thread in threads}

    def stands_still(self, thread: int) -> bool:
        """Return whether a thread has been at one instruction for long, or waits there for another thread."""
        frame, _, since = self._seen[thread]
        blocked = frame is not None and frame.f_code.co_filename in _WAITING_FILES
        return monotonic() - since > (BLOCKED_S if blocked else STILL_S)


_GUARD = RLock()
_TABLE = _Table()


def _forget_other_threads() -> None:
    """Start anew with what this thread holds, because the others do not exist in a forked process."""
    global _GUARD, _TABLE
    mine = [h for h in _TABLE.held if h.thread == get_ident()]
    _GUARD = RLock()
    _TABLE = _Table()
    _TABLE.held += mine


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def lock_of(modules: Sequence[nn.Module], tensors: Sequence[Tensor] = ()) -> ModuleLock:
    """Return the lock of the modules and tensors that a solve uses."""
    return ModuleLock(modules, tensors, innermost=False)


def lock_of_generators() -> ModuleLock:
    """Return the lock of the random number generators, which all threads share. It is held for one f call at most."""
    return ModuleLock((torch.default_generator,), (), innermost=True)
