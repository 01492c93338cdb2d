"""How a command ends: its exit code, and the sentence that says why."""

import errno
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import TypeVar

from rich.console import Console
from rich.markup import escape

from symplectic_bench.analysis.baseline import BaselineMissing, UnfitForBaseline
from symplectic_bench.analysis.revisions import RevisionError
from symplectic_bench.report.publication import NoRows, UnknownEnvironment
from symplectic_bench.rows.record import UnreadableRow
from symplectic_bench.rows.store import StoreError
from symplectic_bench.run.executors.cluster import PlaceError
from symplectic_bench.run.executors.executor import ExecutorError
from symplectic_bench.spec.expansion import NothingLeft
from symplectic_bench.spec.suite import SuiteError

console = Console(soft_wrap=True, highlight=False)


class Exit(IntEnum):
    """What the command's exit code says."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    REGRESSION = 3
    NOTHING_RAN = 4
    BASELINE_MISSING = 5


REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOLCK, errno.ENOTSUP)
"""What a file system says that takes nothing."""

GRAVITY = (Exit.USAGE, Exit.FAILURE, Exit.BASELINE_MISSING, Exit.NOTHING_RAN, Exit.REGRESSION, Exit.DONE)
"""Where suites end differently, the first of these that one of them has is the exit code."""

ENDINGS: dict[type[Exception], Exit] = {
    SuiteError: Exit.USAGE,
    UnknownEnvironment: Exit.USAGE,
    NothingLeft: Exit.NOTHING_RAN,
    NoRows: Exit.NOTHING_RAN,
    BaselineMissing: Exit.BASELINE_MISSING,
    StoreError: Exit.FAILURE,
    UnreadableRow: Exit.FAILURE,
    UnfitForBaseline: Exit.FAILURE,
    PlaceError: Exit.USAGE,
    ExecutorError: Exit.FAILURE,
    RevisionError: Exit.FAILURE,
}
"""Errors that a sentence explains. Any other is a bug of ours and shows its traceback."""


T = TypeVar("T")


def for_each(items: Iterable[T], action: Callable[[T], Exit | None]) -> Exit:
    """Does the action for every item, says what went wrong with one, and returns the gravest ending."""
    codes = []
    for item in items:
        try:
            codes.append(action(item) or Exit.DONE)
        except tuple(ENDINGS) as error:
            console.print(f"[red]{escape(str(error))}")
            codes.append(next(code for kind, code in ENDINGS.items() if isinstance(error, kind)))
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            console.print(f"[red]{escape(str(error))}: make room, or choose another folder, and run the same again")
            codes.append(Exit.FAILURE)
    return worst(codes)


def worst(codes: Sequence[Exit]) -> Exit:
    return next((code for code in GRAVITY if code in codes), Exit.DONE)
