"""A cell of a suite: everything that determines one measurement.

Standard library only, since every measuring process imports this module.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

SCHEMA = 1
"""The version of the meaning of cells and rows. Raising it changes every cell id, so old rows no longer count."""

Size = int | float | str

ITERATIONS = "iterations"
"""The size that gives a task's number of training iterations. It does not change what is trained."""

FIRST_ITERATIONS = 20
"""The number of iterations over which contenders are compared, whether or not they train for longer."""


@dataclass(frozen=True)
class Cell:
    """A measurement to make, as plain values.

    sizes are the problem's own parameters as sorted (name, value) pairs. Either rtol and atol are given, or steps, the
    number of fixed steps. contender is a name in CONTENDERS, gradient one of that contender's gradients.

    Raises ValueError if tolerances and steps are both given or both missing, or if sizes are not sorted.
    """

    suite: str
    problem: str
    sizes: tuple[tuple[str, Size], ...]
    batch: int
    method: str
    rtol: float | None
    atol: float | None
    steps: int | None
    gradient: str
    contender: str
    dtype: str
    device: str
    threads: int
    seed: int

    def __post_init__(self) -> None:
        adaptive = self.rtol is not None and self.atol is not None and self.steps is None
        fixed = self.rtol is None and self.atol is None and self.steps is not None
        if not (adaptive or fixed):
            got = f"rtol={self.rtol}, atol={self.atol}, steps={self.steps}"
            raise ValueError(f"a cell has either rtol and atol, or steps; got {got}")
        if list(self.sizes) != sorted(self.sizes):
            raise ValueError(f"sizes must be sorted by name (they are hashed); got {self.sizes}")

    @property
    def sizes_dict(self) -> dict[str, Size]:
        """The sizes by name."""
        return dict(self.sizes)

    @cached_property
    def id(self) -> str:
        """16 hex digits, independent of the suite: cells of two suites may be the same measurement."""
        return self._digest(without=("suite",))

    @cached_property
    def group_id(self) -> str:
        """Shared by cells that differ only in contender, gradient or number of iterations."""
        return self._digest(without=("suite", "contender", "gradient"))

    @cached_property
    def setting_id(self) -> str:
        """Shared by cells that differ only in contender, gradient, seed or number of iterations."""
        return self._digest(without=("suite", "contender", "gradient", "seed"))

    @cached_property
    def problem_id(self) -> str:
        """Shared by cells that have the same field, initial state and loss, hence the same reference gradient."""
        return self._digest(only=("problem", "sizes", "batch", "dtype", "seed"))

    @property
    def name(self) -> str:
        """Contender and gradient, for display: 'ours symplectic'."""
        return f"{self.contender} {self.gradient}"

    @property
    def group_label(self) -> str:
        """The group in one line, for display: 'van_der_pol(mu=1.0) batch 64, rk4 20 steps, float64'."""
        sizes = ", ".join(f"{name}={value}" for name, value in self.sizes if name != ITERATIONS)
        accuracy = f"rtol {self.rtol:g} atol {self.atol:g}" if self.steps is None else f"{self.steps} steps"
        device = "" if self.device == "cpu" else f" on {self.device}"
        return f"{self.problem}({sizes}) batch {self.batch}, {self.method} {accuracy}, {self.dtype}{device}"

    def _digest(self, without: tuple[str, ...] = (), only: tuple[str, ...] | None = None) -> str:
        chosen = {k: getattr(self, k) for k in _FIELDS if k not in without and (only is None or k in only)}
        if "contender" not in chosen and "sizes" in chosen:
            chosen["sizes"] = [size for size in self.sizes if size[0] != ITERATIONS]
        canonical = json.dumps({"schema": SCHEMA, **chosen}, sort_keys=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_FIELDS = tuple(f.name for f in fields(Cell))


def is_users_problem(name: str) -> bool:
    """Return whether a problem's name is the import path MODULE:FACTORY of a user's own."""
    return ":" in name


def group_cells(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells in lists of equal group_id, in the order of their first cells."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group_id, []).append(cell)
    return list(groups.values())


def setting(gradient: str) -> tuple[str, int]:
    """Return the family and the number of a name such as "revolve-8"; the name itself and 0 if it has no number."""
    found = re.fullmatch(r"([a-z]+)-(\d+)", gradient)
    return (found[1], int(found[2])) if found else (gradient, 0)
