"""The sums of dL/dtheta in static buffers, to which transposed steps add."""

from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import foreach_add_, foreach_copy_, foreach_zero_
from symplectic_adjoint.field.layout import HALF_DTYPES


class ProgramSums:
    """One sum for each of the leaves, as `accumulate` of odeint says: plain, in float64, or compensated."""

    def __init__(self, leaves: Sequence[Tensor], accumulate: str | None):
        self._accumulate = accumulate
        self.totals = [torch.zeros_like(p, dtype=self._dtype(p), requires_grad=False) for p in leaves]
        self._low = [torch.zeros_like(x) for x in self.totals] if accumulate == "compensated" else []
        self._used: set[int] = set()

    def _dtype(self, p: Tensor) -> torch.dtype:
        if self._accumulate == "float64":
            return torch.promote_types(p.dtype, torch.float64)
        return torch.float32 if p.dtype in HALF_DTYPES else p.dtype

    def clear(self) -> None:
        """Set all sums to zero."""
        self._used.clear()
        if self.totals:
            foreach_zero_([*self.totals, *self._low])

    def add(self, bars: Sequence[Tensor | None]) -> tuple[int, ...]:
        """Add one term to each sum, None being none; return which of them there were."""
        which = tuple(i for i, bar in enumerate(bars) if bar is not None)
        terms = [bar.to(total.dtype) for bar, total in zip(bars, self.totals, strict=True) if bar is not None]
        totals = [self.totals[i] for i in which]
        if self._low:
            for total, low, x in zip(totals, [self._low[i] for i in which], terms, strict=True):
                _add_compensated(total, low, x)
        elif terms:
            foreach_add_(totals, terms)
        return which

    def mark_used(self, which: Sequence[int]) -> None:
        """Record the sums to which something was added."""
        self._used.update(which)

    def result(self) -> list[Tensor | None]:
        """Return a copy of each sum, None if nothing was added to it."""
        if self._low:
            pairs = enumerate(zip(self.totals, self._low, strict=True))
            return [a + b if i in self._used else None for i, (a, b) in pairs]
        copies = [torch.empty_like(x) if i in self._used else None for i, x in enumerate(self.totals)]
        if self._used:
            foreach_copy_([x for x in copies if x is not None], [self.totals[i] for i in sorted(self._used)])
        return copies


def _add_compensated(total: Tensor, low: Tensor, x: Tensor) -> None:
    """Add x to total, and the rounding error of that to low; see CompensatedSum."""
    value = total + x
    as_added = value - total
    low.add_((total - (value - as_added)).add_(x - as_added))
    total.copy_(value)
