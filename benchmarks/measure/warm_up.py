"""One small gradient first, so that what is made once a process (code pages, workspaces, caches) is there already."""

from dataclasses import replace
from pathlib import Path

from benchmarks.cell import Cell
from benchmarks.contenders import CONTENDERS
from benchmarks.problems import build

LOOSE = 1e-2


def warm_up(cell: Cell, cache_dir: Path) -> None:
    """The cell's gradient for one row of the batch, in one step or at a loose tolerance."""
    small = {"steps": 1} if cell.rtol is None else {"rtol": LOOSE, "atol": LOOSE}
    cell = replace(cell, batch=1, **small)
    run = CONTENDERS[cell.contender].gradient(build(cell, cache_dir), cell)
    run.forward()
    run.backward()
