"""Sums of many tensors: in their own precision, in float64, or compensated."""

import torch
from torch import Tensor

ACCUMULATIONS = ("float64", "compensated")
"""The values of `accumulate` other than None."""


class RunningSum:
    """A sum in the precision of its terms. value is None before the first term."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self._own = False

    def add(self, x: Tensor) -> None:
        """Add x. The first term is neither copied nor modified: it may be large, and it is the caller's."""
        if self.value is None:
            self.value = x
        elif self._own:
            self.value.add_(x)
        else:
            self.value, self._own = self.value + x, True

    def add_all(self, terms: list[Tensor]) -> None:
        """Add the terms and empty the list, freeing one by one: each may be as large as the sum.

        They are added up first, so that the sum, which is usually larger, is rounded once.
        """
        if len(terms) > 1:
            of_terms = type(self)()
            while terms:
                of_terms.add(terms.pop())
            x = of_terms.total()
        else:
            x = terms.pop() if terms else None
        if x is not None:
            self.add(x)

    def total(self) -> Tensor | None:
        """Return the sum as a tensor that nothing else refers to; None without terms."""
        return self.value if self.value is None or self._own else self.value.clone()


class SumInPlace(RunningSum):
    """A sum in a given tensor, to which others may add too."""

    def __init__(self, total: Tensor):
        super().__init__()
        self._total = total

    def add(self, x: Tensor) -> None:
        if self.value is None:
            self.value = self._total.copy_(x)
        else:
            self.value.add_(x)

    def add_all(self, terms: list[Tensor]) -> None:
        while terms:
            self.add(terms.pop())


class WideSum(RunningSum):
    """A sum in float64 (complex128)."""

    def add(self, x: Tensor) -> None:
        super().add(x.to(torch.promote_types(x.dtype, torch.float64)) if self.value is None else x)


class CompensatedSum(RunningSum):
    """A sum in the precision of its terms, with the rounding errors of the additions summed separately.

    The rounding error of an addition is itself representable in that precision (Knuth, The Art of Computer
    Programming 2, 4.2.2, Theorem B), so the total is as accurate as a sum in twice the precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self._low: Tensor | None = None

    def add(self, x: Tensor) -> None:
        if self.value is None:
            self.value = x
            return
        value = self.value + x
        x_as_added = value - self.value
        error = (self.value - (value - x_as_added)).add_(x - x_as_added)
        self.value, self._own = value, True
        self._low = error if self._low is None else self._low.add_(error)

    def total(self) -> Tensor | None:
        return super().total() if self.value is None or self._low is None else self.value + self._low


def running_sum(accumulate: str | None) -> RunningSum:
    """Return an empty sum of the kind that `accumulate` (see odeint) selects."""
    kinds = {None: RunningSum, "float64": WideSum, "compensated": CompensatedSum}
    return kinds[accumulate]()
