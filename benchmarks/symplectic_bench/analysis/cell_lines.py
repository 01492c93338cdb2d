"""The cells of a suite together with the lines of its summary: how to find a line, and what to call a cell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from symplectic_bench.analysis.summary import Line
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import axes

STAGES = "stages"
"""An axis of the cell's method rather than of the cell; only a row has it."""


@dataclass(frozen=True)
class CellLines:
    """A suite's cells, measured or not, and the lines of its summary, one for each cell that has a row."""

    cells: Sequence[Cell]
    lines: Sequence[Line]

    def line(self, cell: Cell) -> Line | None:
        """Return the cell's line, or None if it has no row."""
        return self._by_id.get(cell.id)

    def named(self, name: str, group_id: str) -> Line | None:
        """Return the first line of a contender and gradient ("torchdiffeq backprop") in a group, or None."""
        return self._by_name.get((name, group_id))

    @cached_property
    def _by_id(self) -> dict[str, Line]:
        return {line["cell_id"]: line for line in self.lines}

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Line]:
        return {(line["name"], line["group_id"]): line for line in reversed(self.lines)}

    def axes(self, cell: Cell) -> dict[str, Any]:
        """Return the cell's axes and sizes, and its method's number of stages if that is known."""
        line = self.line(cell)
        stages = None if line is None else line[STAGES]
        return axes(cell) | ({} if stages is None else {STAGES: int(stages)})

    def short_label(self, cell: Cell, without: str = "") -> str:
        """Return the group's label without the axis `without` and the sizes that all cells of the problem share."""
        shown = self._varied_sizes.get(cell.problem, set()) - {without}
        sizes = tuple(size for size in cell.sizes if size[0] in shown)
        label = replace(cell, sizes=sizes).group_label.replace("()", "")
        if without == STAGES:
            return label.replace(f", {cell.method} ", ", ")
        return label.replace(f" {cell.steps} steps", "") if without == "steps" else label

    @cached_property
    def _varied_sizes(self) -> dict[str, set[str]]:
        """The names of the sizes that have more than one value among a problem's cells, by problem."""
        values: dict[str, dict[str, set[object]]] = {}
        for cell in self.cells:
            for name, value in cell.sizes:
                values.setdefault(cell.problem, {}).setdefault(name, set()).add(value)
        return {problem: {name for name, found in sizes.items() if len(found) > 1} for problem, sizes in values.items()}
