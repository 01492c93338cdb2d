"""Failures as results: the status of a cell after an exception or the death of its process, and a reason to publish."""

import re
import signal

import torch

from symplectic_bench.spec.status import Status

LONGEST_REASON = 200

# Folder names reveal where a user keeps files, and often who the user is, so only the file name is kept.
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:|~)?[\\/](?:[^\s'\"\\/:]+[\\/])+")


class Diverged(RuntimeError):
    """A contender's solver gave up, or its values are not finite."""


class TooCostly(RuntimeError):
    """A contender's way of computing the gradient would take too long for this problem."""


def diagnose(error: BaseException) -> tuple[Status, str]:
    """Return the status of a cell that raised this exception, and its type and first line without folder names."""
    text = str(error)
    if isinstance(error, Diverged):
        return Status.DIVERGED, publishable(text)
    if isinstance(error, TooCostly):
        return Status.SKIPPED, publishable(text)
    reason = publishable(f"{type(error).__name__}: {text}")
    # torch's CPU allocator raises a plain RuntimeError.
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
    return (Status.OOM if exhausted else Status.ERROR), reason


def diagnose_exit(exit_code: int | None, killed_for_memory: bool | None) -> tuple[Status, str]:
    """Return the status and reason for a process that died without a result.

    killed_for_memory is None if the kernel does not report it.
    """
    if exit_code == -signal.SIGKILL and killed_for_memory is not False:
        cause = "was killed for" if killed_for_memory else "was killed by signal 9, presumably for"
        return Status.OOM, f"the process {cause} lack of memory"
    if exit_code is not None and exit_code < 0:
        return (
            Status.ERROR,
            f"the process was killed by signal {-exit_code} ({signal.Signals(-exit_code).name})",
        )
    return Status.ERROR, f"the process ended with exit code {exit_code} and no result"


def publishable(text: str) -> str:
    """Return the first line of the text, without folder names, cut to LONGEST_REASON characters."""
    line = _FOLDERS.sub("", text.strip().partition("\n")[0])
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
