"""The contenders, by name."""

from benchmarks.cell import Cell
from benchmarks.contenders.contender import Contender, Counts, Observation, Run
from benchmarks.contenders.ours import OURS
from benchmarks.contenders.torchdiffeq import TORCHDIFFEQ

__all__ = ["CONTENDERS", "Contender", "Counts", "Observation", "Run", "decline"]

CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in (OURS, TORCHDIFFEQ)}


def decline(cell: Cell) -> str | None:
    """Why the cell's contender cannot do it, or None."""
    if cell.contender not in CONTENDERS:
        return f"there is no contender {cell.contender!r}; there are {', '.join(CONTENDERS)}"
    return CONTENDERS[cell.contender].decline(cell)
