"""Times that occur more than once in t: the solve sees each time once, and its output is given for every entry."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from symplectic_adjoint.solve.grid import Grid


@dataclass(frozen=True)
class RepeatedTimes:
    """How the entries of t map to its distinct times, which are in the same order.

    first: by distinct time, the first entry of t that has it. group: by entry of t, the index of its distinct time.
    """

    first: tuple[int, ...]
    group: tuple[int, ...]

    @classmethod
    def of(cls, times: Sequence[float]) -> Self | None:
        """Return the map of these monotone times; None if they are distinct."""
        first = [j for j, time in enumerate(times) if j == 0 or time != times[j - 1]]
        if len(first) == len(times):
            return None
        group = [0] * len(times)
        for j in range(1, len(times)):
            group[j] = group[j - 1] + (times[j] != times[j - 1])
        return cls(tuple(first), tuple(group))

    @property
    def repeats(self) -> list[int]:
        """The entries of t that repeat the one before them, those of t[0] excepted: their output is y0."""
        return [j for j, g in enumerate(self.group) if g > 0 and j != self.first[g]]

    def between_ends(self) -> Self:
        """Return the map for one more time before these and one more after them."""
        last = len(self.first) + 1
        return replace(
            self,
            first=(0, *(j + 1 for j in self.first), len(self.group) + 1),
            group=(0, *(g + 1 for g in self.group), last),
        )

    def up_to(self, distinct: int, *, one_more: bool) -> Self:
        """Return the map of the first `distinct` times; one_more: with another time after them."""
        group = tuple(g for g in self.group if g < distinct)
        more_first, more_group = ((len(group),), (distinct,)) if one_more else ((), ())
        return replace(self, first=(*self.first[:distinct], *more_first), group=(*group, *more_group))

    def distinct(self, t: Tensor) -> Tensor:
        """Return each distinct time once. Its gradient is that of the first entry of t."""
        times = t.unbind()  # to select by an index tensor, that would be copied to a card, with a wait
        return torch.stack([times[j] for j in self.first])

    def expand(self, ys: Tensor) -> Tensor:
        """Return the outputs at every entry of t, given those at the distinct times."""
        rows = ys.unbind()
        return torch.stack([rows[g] for g in self.group])

    def fold(self, grad_ys: Tensor) -> Tensor:
        """Return the cotangents of the outputs at the distinct times: the sum over the entries of each."""
        rows = grad_ys.unbind()
        sums = [rows[j] for j in self.first]
        for j, g in enumerate(self.group):
            if j != self.first[g]:
                sums[g] = sums[g] + rows[j]
        return torch.stack(sums)

    def expand_grid(self, grid: Grid) -> Grid:
        """Return the grid with an output for every entry of t, and its pins as indices into t."""
        first, group = (torch.tensor(x, device="cpu") for x in (self.first, self.group))
        group = group[group < len(grid.output_step)]  # a solve that failed has fewer outputs
        return replace(
            grid,
            pinned_to=torch.where(grid.pinned_to >= 0, first[grid.pinned_to.clamp_min(0)], grid.pinned_to),
            output_step=grid.output_step[group],
            output_sigma=grid.output_sigma[group],
        )
