"""Sums of small states that are formed together: each term is added to all of its sums in one kernel."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from symplectic_adjoint._torch_internals import foreach_addcmul, foreach_addcmul_
from symplectic_adjoint.field.fills import Fills


class PushedSums:
    """Sums of scale x, by number. They start from zero or, if `start` is given, from that state.

    All of them exist at once: where a step adds up s terms for s sums, it holds up to s states more than if it formed
    each sum when it is needed, but launches s kernels instead of s^2 / 2.
    """

    def __init__(self, fills: Fills, start: Tensor | None = None, started: Iterable[int] = ()):
        self._fills, self._start = fills, start
        self._started = frozenset(started)
        self._sums: dict[int, Tensor] = {}

    def push(self, x: Tensor, targets: Sequence[tuple[int, float]]) -> None:
        """Add scale x to the sum of each target (sum, scale).

        sum + scale * one * x is rounded as torch.add(sum, x, alpha=scale) is on a card.
        """
        if not targets:
            return
        numbers, scales = [i for i, _ in targets], [scale for _, scale in targets]
        terms, ones = [x] * len(targets), [self._fills.ones] * len(targets)
        if all(i in self._sums for i in numbers):
            foreach_addcmul_([self._sums[i] for i in numbers], ones, terms, scales)
            return
        sums = [self._sums[i] if i in self._sums else self._origin(i) for i in numbers]
        self._sums.update(zip(numbers, foreach_addcmul(sums, ones, terms, scales), strict=True))

    def get(self, i: int) -> Tensor | None:
        """Return sum i, which is not copied; None if it has no terms yet, or was forgotten."""
        return self._sums.get(i)

    def pop(self, i: int) -> Tensor | None:
        """Return sum i for the caller to change, and forget it."""
        return self._sums.pop(i, None)

    def drop_below(self, i: int) -> None:
        """Forget the sums with a lower number."""
        self._sums = {n: x for n, x in self._sums.items() if n >= i}

    def _origin(self, i: int) -> Tensor:
        return self._start if self._start is not None and i in self._started else self._fills.zeros
