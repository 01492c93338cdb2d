"""The contenders, by name."""

from benchmarks.cell import Cell
from benchmarks.contenders.contender import Contender, Counts, NoGradient, Observation, Run, WholeRun
from benchmarks.contenders.diffrax import DIFFRAX
from benchmarks.contenders.floor import FLOOR
from benchmarks.contenders.ours import OURS, VARIANTS
from benchmarks.contenders.paper import PAPER
from benchmarks.contenders.torchdiffeq import TORCHDIFFEQ
from benchmarks.contenders.torchdiffeqpack import TORCHDIFFEQPACK
from benchmarks.contenders.torchode import TORCHODE

__all__ = ["CONTENDERS", "Contender", "Counts", "NoGradient", "Observation", "Run", "WholeRun", "decline", "missing"]

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (OURS, *VARIANTS, TORCHDIFFEQ, TORCHDIFFEQPACK, PAPER, TORCHODE, DIFFRAX, FLOOR)
}


def decline(cell: Cell) -> str | None:
    """Why the cell makes no sense, here or anywhere; or None."""
    if cell.contender not in CONTENDERS:
        return f"there is no contender {cell.contender!r}; there are {', '.join(CONTENDERS)}"
    return CONTENDERS[cell.contender].decline(cell)


def missing(cell: Cell) -> str | None:
    """What is to be installed before the cell can be measured here; or None."""
    return CONTENDERS[cell.contender].missing()
