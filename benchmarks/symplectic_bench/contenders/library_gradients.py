"""The library's gradients by the names that suites give them: its presets, and its dials set to a number.

"revolve-8" keeps 8 states, "graphs-20" holds the graphs of the last 20 f calls, "auto-500" has a memory_budget of 500
KiB, "disk" keeps every step's start on disk.
"""

from collections.abc import Callable, Mapping
from typing import Any

from symplectic_adjoint import GRADIENTS, Auto, Revolve, Symplectic
from symplectic_bench.spec.cell import setting

DIALS: Mapping[str, Callable[[int], Any]] = {
    "revolve": lambda number: Revolve(number),
    "graphs": lambda number: Symplectic(graphs=number),
    "auto": lambda number: Auto(f"{number} KiB"),
}
PLACES: Mapping[str, Any] = {"disk": Symplectic(offload="disk")}
PRESET_ROOM = int(Revolve().checkpoints)
"""States that the preset "revolve" keeps."""
NAMES = (*GRADIENTS, *(f"{dial}-N" for dial in DIALS), *PLACES)


def choice(name: str) -> Any:
    """What the library calls gradient=; None where it has none of this name."""
    if name in GRADIENTS:
        return name
    if name in PLACES:
        return PLACES[name]
    dial, number = setting(name)
    return DIALS[dial](number) if dial in DIALS and number > 0 else None
