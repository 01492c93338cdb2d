"""The library's gradients by the names that suites use: presets, and dials set to a number.

"revolve-8" keeps 8 states, "graphs-20" holds the graphs of the last 20 f calls, "auto-500" has a memory_budget of 500
KiB, and "disk" keeps every step's start on disk.
"""

from collections.abc import Callable, Mapping
from typing import Any

from symplectic_adjoint import GRADIENTS, Auto, Revolve, Strategy, Symplectic
from symplectic_bench.spec.cell import setting

DIALS: Mapping[str, Callable[[int], Any]] = {
    "revolve": lambda number: Revolve(number),
    "graphs": lambda number: Symplectic(graphs=number),
    "auto": lambda number: Auto(f"{number} KiB"),
}
PLACES: Mapping[str, Any] = {"disk": Symplectic(offload="disk")}
NAMES = (*GRADIENTS, *(f"{dial}-N" for dial in DIALS), *PLACES)
STRATEGIES: Mapping[str, Strategy] = {**GRADIENTS, **{f"{dial}-N": make(8) for dial, make in DIALS.items()}, **PLACES}
"""One strategy for each of NAMES: what it accumulates and compiles does not depend on a dial's number."""


def family(name: str) -> str:
    """Return the entry of NAMES that a gradient's name belongs to: "revolve-N" for "revolve-8"."""
    dial, number = setting(name)
    return f"{dial}-N" if number and dial in DIALS else name


def library_gradient(name: str) -> Any:
    """Return what the library takes as gradient=, or None if it has no gradient of this name."""
    if name in GRADIENTS:
        return name
    if name in PLACES:
        return PLACES[name]
    dial, number = setting(name)
    return DIALS[dial](number) if dial in DIALS and number > 0 else None
