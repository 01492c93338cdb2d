"""Work done here and now, and work that needs no torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.rows.record import Measurement
from symplectic_bench.run.executors.executor import Note, Work
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_row


def silent(line: str, cell: Cell | None = None, waits: bool = False) -> None:
    pass


def measured(work: Work, cells: Sequence[Cell], note: Note = silent) -> Iterator[Measurement]:
    """The rows of the cells, measured in this process's children."""
    work.prepare(cells, note)
    for group in work.groups(cells):
        yield from work.measure(group, (), note)


@dataclass(frozen=True)
class Scripted:
    """Work that calls `act` for every cell, each a group of its own, and makes its row up."""

    act: Callable[[Cell], Status | None] = lambda cell: None

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return [[cell] for cell in cells]

    def within(self, folder: Path) -> "Scripted":
        return self

    def prepare(self, cells: Sequence[Cell], note: Note) -> None:
        pass

    def measure(self, group: Sequence[Cell], cores: tuple[int, ...], note: Note) -> Iterator[Measurement]:
        for cell in group:
            note(f"measuring {cell.name}", cell)
            yield a_row(cell, status=self.act(cell) or Status.OK)
