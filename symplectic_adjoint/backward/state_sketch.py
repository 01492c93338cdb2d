"""A few numbers that identify a state or a value of f, kept in its place."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from symplectic_adjoint.field.matrix_products import mv

COLUMNS = 8
"""The number of sums that a sketch has, besides fewer than this many entries left over."""


class StateSketch:
    """Weighted sums of a state's entries: every COLUMNS-th entry belongs to the same sum, with weights from 1 to 2.

    A change of sign, a permutation and a change of one entry all change it. A state of up to COLUMNS numbers is its
    own sketch.
    """

    __slots__ = ("numbers", "spread")

    def __init__(self, y: Tensor):
        y = y.detach()
        flat = (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).reshape(-1)
        rows = len(flat) // COLUMNS
        self.spread = 1.0
        """How far a sum moves if every entry moves by 1 with a random sign."""
        if rows <= 1:
            self.numbers = flat.clone()
            return
        weights = torch.linspace(1.0, 2.0, rows, dtype=flat.dtype, device=flat.device)
        sums, rest = mv(flat[: COLUMNS * rows].view(rows, COLUMNS).T, weights), flat[COLUMNS * rows :]
        self.numbers = torch.cat([sums, rest]) if len(rest) else sums
        self.spread = 2.0 * math.sqrt(rows)

    def minus(self, other: "StateSketch") -> Tensor:
        """Return the differences of the numbers."""
        return torch.sub(self.numbers, other.numbers)


@dataclass(frozen=True)
class Marks:
    """What a forward pass leaves behind to be recognised by.

    end: its last state. first_value, last_value: f in the first call of its first step, and in a call at its end.
    """

    end: StateSketch
    first_value: StateSketch | None = None
    last_value: StateSketch | None = None
