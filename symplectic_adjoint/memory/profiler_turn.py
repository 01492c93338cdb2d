"""The use of torch's profiler by one thread at a time, without its messages on stderr."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from symplectic_adjoint._torch_internals import ERROR, WARNING, allocation_events, log_level

PATIENCE_S = 600.0
"""How long a thread waits for its turn: a phase that waits for a thread that waits for its turn would never end."""

_turn = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Enter the only thread that may use the profiler: two at once end the process.

    Raises RuntimeError if another thread still uses it after PATIENCE_S.
    """
    turn = _turn
    if not turn.acquire(timeout=PATIENCE_S):
        raise RuntimeError(
            f"another thread has used torch's profiler for {PATIENCE_S:.0f} s: measure memory in one thread, and in no "
            "thread that a measured function waits for"
        )
    try:
        _start()
        with _released_unseen():
            yield
    finally:
        turn.release()


@contextmanager
def _released_unseen() -> Iterator[None]:
    """Keep the profiler from logging that it does not know the size of a released block, which is then not counted.

    It says so of the first and of each thousandth block that was allocated before it ran, and only the level of the
    whole log can be changed. A user who has chosen another level than torch's default keeps it.
    """
    level = log_level()
    if level.value != WARNING:
        yield
        return
    level.value = ERROR
    try:
        yield
    finally:
        level.value = WARNING


@cache
def _start() -> None:
    """Use the profiler once: outside of the thread that imported torch, its first use writes a line to stderr."""
    with _stderr_without(b"External init callback must run in same thread"), allocation_events():
        pass


@contextmanager
def _stderr_without(words: bytes) -> Iterator[None]:
    """Hold back what the process writes to stderr in a short block; at its end write all lines but those with words."""
    with ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            given = os.dup(2)
        except OSError:  # there is no folder for temporary files, or stderr is closed
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(given, 2)
            os.close(given)
            held.seek(0)
            with open(2, "wb", closefd=False) as stderr:
                stderr.writelines(line for line in held if words not in line)


def _after_fork() -> None:
    """In a forked process, forget the turn of a thread that does not exist there."""
    global _turn
    if _turn.acquire(blocking=False):  # it was nobody's, or this thread's
        _turn.release()
        return
    _turn = threading.RLock()
    log_level().value = WARNING


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
