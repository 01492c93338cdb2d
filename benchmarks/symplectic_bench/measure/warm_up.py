"""One small gradient first, so that what is made once a process (code pages, workspaces, caches) is there already."""

import contextlib
from dataclasses import replace
from pathlib import Path

from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged

LOOSE = 1e-2

WARM_STEPS = 100
"""Of a fixed grid, after which a process is as warm as it gets."""


def warm_up(cell: Cell, cache_dir: Path) -> None:
    """The cell's gradient for one row of the batch, in one step or at a loose tolerance.

    One that compiles does so for one shape and one method: its warm-up is the cell itself.
    """
    if not CONTENDERS[cell.contender].compiles:
        cell = replace(short(cell), batch=1)
    attempt(build(cell, cache_dir), cell)


def attempt(problem: Problem, cell: Cell) -> None:
    """The gradient, whatever becomes of it: the cell may need the steps that a shorter one does without."""
    with contextlib.suppress(Diverged):
        CONTENDERS[cell.contender].gradient(problem, cell).complete()
    problem.clear_gradients()


def warming(cell: Cell) -> Cell | None:
    """What will do before a cell of very many steps is timed, None where it must be the cell itself.

    One that compiles may do so for a number of steps.
    """
    if cell.steps is None or cell.steps <= WARM_STEPS or CONTENDERS[cell.contender].compiles:
        return None
    return replace(cell, steps=WARM_STEPS)


def short(cell: Cell) -> Cell:
    """The cell in as few steps as can be."""
    return replace(cell, steps=1) if cell.rtol is None else replace(cell, rtol=LOOSE, atol=LOOSE)
