"""A suite's own problems of the user, imported and tried in processes of their own before anything is measured."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from symplectic_bench.problems import PROBLEMS, InvalidProblem, build
from symplectic_bench.problems.imported import examine, source_of
from symplectic_bench.run import processes as process
from symplectic_bench.run.processes import Limits
from symplectic_bench.spec.cell import Cell, Size, is_users_problem
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import SuiteError

LIMIT_S = 60.0
"""Time to import a module, or to make a problem and call its field and loss once."""

GRACE_S = 10.0
"""Time for a process to say where it was when the time was up, before it is killed."""


class TookTooLong(BaseException):
    """Raised in a user's code when its time is up. Its `except Exception` does not catch this."""


@dataclass(frozen=True)
class UsersProblem:
    """What is known of a problem before one is made: its sizes with their defaults, and the digest of its source."""

    sizes: Mapping[str, Size]
    source: str


def describe(path: str, limit_s: float = LIMIT_S) -> UsersProblem:
    """Import a user's problem in a process of its own. Raise SuiteError if it does not have the expected form."""
    found = _ask(_describe, (path,), path, Limits(min(limit_s, LIMIT_S)))
    return UsersProblem(found[0]["sizes"], found[0]["source"])


def require_sound(cells: Sequence[Cell], limit_s: float = LIMIT_S) -> None:
    """Make each problem of the user's that these cells name. Raise SuiteError, with the first mistake, for a bad one.

    A problem that does not fit into the memory is left to its cells.
    """
    problems: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        if is_users_problem(cell.problem):
            problems.setdefault((cell.problem_id, cell.device), cell)
    for cell in problems.values():
        _ask(_examine, (cell,), cell.problem, Limits(min(limit_s, LIMIT_S), threads=cell.threads))


def _ask(function: Callable[..., Any], args: tuple[Any, ...], path: str, limits: Limits) -> list[Any]:
    outcome = process.run(_within, (limits.timeout_s, function, *args), _extended(limits))
    errors = [value["error"] for value in outcome.values if "error" in value]
    if errors:
        raise SuiteError(errors[0])
    if not outcome.ok and outcome.status is not Status.OOM:
        raise SuiteError(f"problem {path}: {outcome.reason}")
    return outcome.values


def _extended(limits: Limits) -> Limits:
    return Limits(limits.timeout_s + GRACE_S, threads=limits.threads)


# In the other process.


def _within(limit_s: float, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Return the function's answer, or the message of an invalid problem."""
    try:
        with _time_limit(limit_s):
            return function(*args)
    except InvalidProblem as why:
        return {"error": str(why)}


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """Raise TookTooLong in this thread after limit_s, where the system has signals."""

    def on_alarm(*_: object) -> None:
        raise TookTooLong(f"no end after {limit_s:g} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _describe(path: str) -> dict[str, Any]:
    return {"sizes": PROBLEMS[path].sizes, "source": source_of(path)}


def _examine(cell: Cell) -> dict[str, Any]:
    examine(cell.problem, partial(build, cell, Path()))
    return {}
