"""The contenders, by name."""

from symplectic_bench.contenders.contender import (
    Contender,
    Counts,
    NoGradient,
    Observation,
    Peer,
    Run,
    Trainer,
    WholeRun,
)
from symplectic_bench.contenders.diffrax import DIFFRAX
from symplectic_bench.contenders.floor import FLOOR
from symplectic_bench.contenders.ours import OURS, VARIANTS, Ours
from symplectic_bench.contenders.paper import PAPER
from symplectic_bench.contenders.torchdiffeq import TORCHDIFFEQ
from symplectic_bench.contenders.torchdiffeqpack import TORCHDIFFEQPACK
from symplectic_bench.contenders.torchode import TORCHODE
from symplectic_bench.spec.cell import Cell

__all__ = [
    "CONTENDERS",
    "TRAINERS",
    "Contender",
    "Counts",
    "NoGradient",
    "Observation",
    "Run",
    "Trainer",
    "WholeRun",
    "decline",
    "decline_training",
    "missing",
]

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (OURS, *VARIANTS, TORCHDIFFEQ, TORCHDIFFEQPACK, PAPER, TORCHODE, DIFFRAX, FLOOR)
}

TRAINERS: dict[str, Trainer] = {
    contender.name: contender for contender in CONTENDERS.values() if isinstance(contender, Ours | Peer)
}


def decline_training(cell: Cell) -> str | None:
    """Why no network can be trained so, or None."""
    if cell.contender in CONTENDERS and cell.contender not in TRAINERS:
        return f"{cell.contender} is not for networks in torch; {', '.join(TRAINERS)} are"
    return decline(cell)


def decline(cell: Cell) -> str | None:
    """Why the cell makes no sense, here or anywhere; or None."""
    if cell.contender not in CONTENDERS:
        return f"there is no contender {cell.contender!r}; there are {', '.join(CONTENDERS)}"
    return CONTENDERS[cell.contender].decline(cell)


def missing(cell: Cell) -> str | None:
    """What is to be installed before the cell can be measured here; or None."""
    return CONTENDERS[cell.contender].missing()
