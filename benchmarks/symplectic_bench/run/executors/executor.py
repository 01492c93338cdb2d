"""What a sweep asks of the place where its cells are measured, and what that place asks of the work."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.cell import Cell


class ExecutorError(RuntimeError):
    """Cells cannot be measured there. What has been measured is on disk."""


class Note(Protocol):
    """Told what is going on: a line for people, and the cell that it is about, where it is about one.

    waits: nothing goes on, for a reason that somebody may have to see to.
    """

    def __call__(self, line: str, cell: Cell | None = None, waits: bool = False) -> None: ...


class Work(Protocol):
    """What is done with cells. A plain value that may travel to another machine."""

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells, those together that are measured together."""
        ...

    def within(self, folder: Path) -> Self:
        """The same work with all that it keeps on disk in a folder of the machine that does it."""
        ...

    def prepare(self, cells: Sequence[Cell], note: Note) -> None:
        """Have the data that the cells need. Raises MissingData with what stands in the way."""
        ...

    def measure(self, group: Sequence[Cell], cores: tuple[int, ...], note: Note) -> Iterator[Measurement]:
        """Measure a group on these cores (all where none are given). One row a cell, also where it failed."""
        ...


Emit = Callable[[Measurement, Environment], None]
"""Takes a row, and what it was measured on."""


class Executor(Protocol):
    """Where cells are measured. One group at a time on a device, whatever else is measured beside it."""

    def run(self, work: Work, cells: Sequence[Cell], emit: Emit, note: Note) -> None:
        """Measure the cells. Every row is emitted as soon as it is there, by the caller's own thread or under a lock.

        Raises MissingData where data cannot be had, ExecutorError where cells cannot be measured.
        """
        ...


def device_of(group: Sequence[Cell]) -> str:
    return group[0].device


def threads_of(group: Sequence[Cell]) -> int:
    return max(cell.threads for cell in group)
