"""The interfaces between a sweep, the executor that distributes its cells, and the measurer of the cells."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Protocol, Self

from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.cell import Cell


class ExecutorError(RuntimeError):
    """The executor cannot measure cells. Rows measured so far are on disk."""


class ProgressCallback(Protocol):
    """Receives the current activity as a line of text, and the cell that it concerns, if any.

    waits: nothing is being measured, for a reason that may need the user's attention.
    """

    def __call__(self, line: str, cell: Cell | None = None, waits: bool = False) -> None: ...


class Measurer(Protocol):
    """Measures cells. It is a plain value that can be sent to another machine."""

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Return the cells in groups that are measured together."""
        ...

    def within(self, folder: Path) -> Self:
        """Return the same measurer with all its files in `folder`."""
        ...

    def prepare(self, cells: Sequence[Cell], on_progress: ProgressCallback) -> None:
        """Prepare the data that the cells need. Raises MissingData, with the reason, if it is unavailable."""
        ...

    def measure(
        self, group: Sequence[Cell], cores: tuple[int, ...], on_progress: ProgressCallback
    ) -> Iterator[Measurement]:
        """Measure a group on these cores (an empty tuple means all). Yield one row per cell, even for a failed one."""
        ...


RowCallback = Callable[[Measurement, Environment], None]
"""Receives a row and the environment in which it was measured."""


class Executor(Protocol):
    """Distributes cells. A device never measures more than one group at a time."""

    def run(
        self, measurer: Measurer, cells: Sequence[Cell], on_row: RowCallback, on_progress: ProgressCallback
    ) -> None:
        """Measure the cells, and pass each row to `on_row` as soon as it exists.

        `on_row` is called from the caller's thread or under a lock. Raises MissingData if data is unavailable,
        ExecutorError if cells cannot be measured.
        """
        ...


def device_of(group: Sequence[Cell]) -> str:
    """Return the device that a group is measured on."""
    return group[0].device


def threads_of(group: Sequence[Cell]) -> int:
    """Return the largest number of threads that a cell of the group uses."""
    return max(cell.threads for cell in group)


def timed(rows: Iterable[Measurement]) -> Iterator[Measurement]:
    """Yield the rows of a group with the time that passed before each, which add up to that of the group."""
    before = monotonic()
    for row in rows:
        yield replace(row, measuring_s=monotonic() - before)
        before = monotonic()
