"""Adding up many tensors: as they come, in float64, or with compensation."""

import torch
from torch import Tensor

ACCUMULATIONS = ("float64", "compensated")
"""What `accumulate` may be, besides None."""


class RunningSum:
    """A sum in the precision of what is added. value is None before the first term."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self._own = False

    def add(self, x: Tensor) -> None:
        """value += x. The first term is borrowed, never changed: it may be large, and the caller's."""
        if self.value is None:
            self.value = x
        elif self._own:
            self.value.add_(x)
        else:
            self.value, self._own = self.value + x, True

    def total(self) -> Tensor | None:
        """The sum, as a tensor that nobody else holds."""
        return self.value if self.value is None or self._own else self.value.clone()


class WideSum(RunningSum):
    """A sum in float64 (complex128)."""

    def add(self, x: Tensor) -> None:
        super().add(x.to(torch.promote_types(x.dtype, torch.float64)) if self.value is None else x)


class CompensatedSum(RunningSum):
    """A sum in its terms' precision, with what each addition rounded off added up apart.

    The error of an addition is itself a number of that precision (Knuth, The Art of Computer Programming 2, 4.2.2,
    Theorem B), so that the total is as accurate as one in twice the precision.
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
    kinds = {None: RunningSum, "float64": WideSum, "compensated": CompensatedSum}
    return kinds[accumulate]()
