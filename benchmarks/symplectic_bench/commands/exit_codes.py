"""Exit codes: their meanings, which errors lead to which, and the message that explains an error."""

import errno
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Self, TypeVar

from symplectic_bench.analysis.baseline import BaselineMissing, UnfitForBaseline
from symplectic_bench.analysis.quoted import WrongQuote
from symplectic_bench.analysis.revisions import RevisionError, UnknownRevision
from symplectic_bench.report.suite_report import NoRows, UnknownEnvironment
from symplectic_bench.rows.record import UnreadableRow
from symplectic_bench.rows.store import StoreError
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.cluster import ExecutorChoiceError
from symplectic_bench.run.executors.executor import ExecutorError
from symplectic_bench.spec.expansion import NothingLeft
from symplectic_bench.spec.suite import SuiteError


class Exit(IntEnum):
    """The exit codes of every command, each with its meaning."""

    meaning: str

    DONE = 0, "done (skipped, timed-out and diverged cells are results)"
    FAILURE = 1, "internal failure"
    USAGE = 2, "bad usage or suite file"
    REGRESSION = 3, "regression"
    NOTHING_RAN = 4, "nothing ran"
    BASELINE_MISSING = 5, "baseline missing"

    def __new__(cls, code: int, meaning: str) -> Self:
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member


ELSEWHERE, IN_THE_WAY = "choose another folder", "remove it or choose another folder"
OS_ADVICE: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"make room or {ELSEWHERE}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), f"change its permissions or {ELSEWHERE}"),
    **dict.fromkeys((errno.ENOLCK, errno.ENOTSUP, errno.EINVAL), f"its file system lacks what is needed: {ELSEWHERE}"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), f"a file is in the place of a folder: {IN_THE_WAY}"),
    errno.EISDIR: f"a folder is in the place of a file: {IN_THE_WAY}",
    errno.ENOTEMPTY: f"a folder is in the place of a file: {IN_THE_WAY}",
    errno.ENOENT: "restore it or choose another",
    errno.ELOOP: f"its links lead to each other: {IN_THE_WAY}",
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV), f"check the disk or {ELSEWHERE}"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN), "end other programs or raise their limit"
    ),
    **dict.fromkeys((errno.EPIPE, errno.ECONNRESET), "a process that was needed has ended"),
}
"""What to do about errors of the file system and of the operating system. Any other is a bug."""

BY_SEVERITY = (Exit.USAGE, Exit.FAILURE, Exit.BASELINE_MISSING, Exit.NOTHING_RAN, Exit.REGRESSION, Exit.DONE)
"""The exit codes from most to least severe: a command on several suites exits with the most severe of theirs."""

ERROR_EXITS: dict[type[Exception], Exit] = {
    SuiteError: Exit.USAGE,
    UnknownEnvironment: Exit.USAGE,
    NothingLeft: Exit.NOTHING_RAN,
    NoRows: Exit.NOTHING_RAN,
    BaselineMissing: Exit.BASELINE_MISSING,
    StoreError: Exit.FAILURE,
    UnreadableRow: Exit.FAILURE,
    UnfitForBaseline: Exit.FAILURE,
    ExecutorChoiceError: Exit.USAGE,
    ExecutorError: Exit.FAILURE,
    UnknownRevision: Exit.USAGE,
    RevisionError: Exit.FAILURE,
    WrongQuote: Exit.USAGE,
}
"""Errors whose message explains them. Any other error is a bug and shows its traceback."""


T = TypeVar("T")


def for_each(items: Iterable[T], action: Callable[[T], Exit | None]) -> Exit:
    """Perform the action on every item, print the errors in ERROR_EXITS, and return the most severe exit code.

    Items that fail for the same reason are explained once.
    """
    codes, told = [], set[str]()
    for item in items:
        try:
            codes.append(action(item) or Exit.DONE)
        except tuple(ERROR_EXITS) as error:
            if str(error) not in told:
                console.print(str(error), style="red")
            told.add(str(error))
            codes.append(next(code for kind, code in ERROR_EXITS.items() if isinstance(error, kind)))
        except OSError as error:
            if error.errno not in OS_ADVICE:
                raise
            file = error.filename2 or error.filename  # of a file that is moved, its target
            what = f"{error.strerror}: {file}" if file else error.strerror
            console.print(f"{what}: {OS_ADVICE[error.errno]}, then run the command again", style="red")
            codes.append(Exit.FAILURE)
    return worst(codes)


def worst(codes: Sequence[Exit]) -> Exit:
    """Return the most severe of the exit codes, Exit.DONE if there are none."""
    return next((code for code in BY_SEVERITY if code in codes), Exit.DONE)


def describe_exit_codes() -> str:
    """Return one line that explains all exit codes, for --help."""
    return f"Exit codes: {', '.join(f'{code.value} {code.meaning}' for code in Exit)}."
