"""One small gradient first, so that what is made once a process (code pages, workspaces, caches) is there already."""

from dataclasses import replace
from pathlib import Path

from benchmarks.cell import Cell
from benchmarks.contenders import CONTENDERS
from benchmarks.problems import build

LOOSE = 1e-2

WARM_STEPS = 100
"""Of a fixed grid, after which a process is as warm as it gets."""


def warm_up(cell: Cell, cache_dir: Path) -> None:
    """The cell's gradient for one row of the batch, in one step or at a loose tolerance.

    One that compiles does so for one shape and one method: its warm-up is the cell itself.
    """
    contender = CONTENDERS[cell.contender]
    if not contender.compiles:
        cell = replace(short(cell), batch=1)
    contender.gradient(build(cell, cache_dir), cell).complete()


def warming(cell: Cell) -> Cell:
    """What is run instead of the cell before it is timed: the cell itself unless it has very many steps."""
    return cell if cell.steps is None else replace(cell, steps=min(cell.steps, WARM_STEPS))


def short(cell: Cell) -> Cell:
    """The cell in as few steps as can be."""
    return replace(cell, steps=1) if cell.rtol is None else replace(cell, rtol=LOOSE, atol=LOOSE)
