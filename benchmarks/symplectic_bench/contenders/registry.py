"""The contenders by name, each loaded from the adapter in its record."""

import importlib

from symplectic_bench.contenders.contender import Contender, Trainer
from symplectic_bench.contenders.contender_records import CONTENDER_RECORDS, ContenderRecord
from symplectic_bench.contenders.jax_device import without_cuda
from symplectic_bench.contenders.ours import Ours
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import no_device
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.suggestion import suggestion


def load(record: ContenderRecord) -> Contender:
    """Import the adapter of a record."""
    module, _, name = record.adapter.partition(":")
    return getattr(importlib.import_module(f"symplectic_bench.contenders.{module}"), name)


CONTENDERS: dict[str, Contender] = {name: load(record) for name, record in CONTENDER_RECORDS.items()}

TRAINERS: dict[str, Trainer] = {
    contender.name: contender for contender in CONTENDERS.values() if isinstance(contender, Ours | Peer)
}


def decline_training(cell: Cell) -> str | None:
    """Return why no network can be trained with the cell's contender and gradient, or None."""
    if cell.contender in CONTENDERS and cell.contender not in TRAINERS:
        return f"{cell.contender} cannot train networks in torch; {', '.join(TRAINERS)} can"
    return decline(cell)


def decline(cell: Cell) -> str | None:
    """Return why the cell cannot be measured anywhere, or None."""
    if cell.contender not in CONTENDERS:
        return f"there is no contender {cell.contender!r}{suggestion(cell.contender, CONTENDERS)}"
    return CONTENDERS[cell.contender].decline(cell)


def missing(cell: Cell) -> str | None:
    """Return what this machine lacks to measure the cell, a package or a device, or None."""
    contender = CONTENDERS[cell.contender]
    if lacks := contender.missing() or no_device(cell):
        return lacks
    return without_cuda() if contender.framework == "jax" and cell.device == "cuda" else None
