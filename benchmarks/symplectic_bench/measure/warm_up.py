"""A small gradient before measuring, to pay the one-time costs of a process (code pages, workspaces, caches)."""

import contextlib
from dataclasses import replace
from pathlib import Path

from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged

LOOSE = 1e-2
"""rtol and atol of a short adaptive solve."""

WARM_STEPS = 100
"""The number of fixed steps after which a process is warm."""


def warm_up(cell: Cell, cache_dir: Path) -> None:
    """Compute the cell's gradient for one sample, in one step or at a loose tolerance.

    Contenders that compile do so for one shape and one method, so their warm-up is the cell itself.
    """
    if not CONTENDERS[cell.contender].compiles:
        cell = replace(shortest(cell), batch=1)
    run_once(build(cell, cache_dir), cell)


def run_once(problem: Problem, cell: Cell) -> None:
    """Compute the gradient and discard it. Ignore divergence: a shortened cell may have too few steps."""
    with contextlib.suppress(Diverged):
        CONTENDERS[cell.contender].gradient(problem, cell).complete()
    problem.clear_gradients()


def warm_up_cell(cell: Cell) -> Cell | None:
    """Return a shorter cell to warm up with before this one is timed, or None if only this one will do.

    Contenders that compile may do so for a fixed number of steps, so their cells are not shortened.
    """
    if cell.steps is None or cell.steps <= WARM_STEPS or CONTENDERS[cell.contender].compiles:
        return None
    return replace(cell, steps=WARM_STEPS)


def shortest(cell: Cell) -> Cell:
    """Return the cell with as few steps as possible: one, or those of a loose tolerance."""
    return replace(cell, steps=1) if cell.rtol is None else replace(cell, rtol=LOOSE, atol=LOOSE)
