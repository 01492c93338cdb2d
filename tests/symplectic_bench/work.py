"""Measuring in this process, and a measurer that needs no torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.rows.record import Measurement
from symplectic_bench.run.executors.executor import Measurer, ProgressCallback
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_row


def silent(line: str, cell: Cell | None = None, waits: bool = False) -> None:
    pass


def measured(
    measurer: Measurer, cells: Sequence[Cell], on_progress: ProgressCallback = silent
) -> Iterator[Measurement]:
    """Yield the rows of the cells, measured in child processes of this one."""
    measurer.prepare(cells, on_progress)
    for group in measurer.groups(cells):
        yield from measurer.measure(group, (), on_progress)


@dataclass(frozen=True)
class Scripted:
    """A measurer that calls `act` on every cell, each a group of its own, and makes up its row."""

    act: Callable[[Cell], Status | None] = lambda cell: None

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return [[cell] for cell in cells]

    def within(self, folder: Path) -> "Scripted":
        return self

    def prepare(self, cells: Sequence[Cell], on_progress: ProgressCallback) -> None:
        pass

    def measure(
        self, group: Sequence[Cell], cores: tuple[int, ...], on_progress: ProgressCallback
    ) -> Iterator[Measurement]:
        for cell in group:
            on_progress(f"measuring {cell.name}", cell)
            yield a_row(cell, status=self.act(cell) or Status.OK)
