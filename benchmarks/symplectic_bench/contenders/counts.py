"""The counted cost of a gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Counts:
    """Evaluations of f and of its vector-Jacobian product, and steps of the forward solve.

    A count is None if the contender does not report it. steps_backward counts the accepted steps of a second, backward
    solve.
    """

    f_calls_forward: int | None
    f_calls_backward: int | None
    vjps_forward: int | None
    vjps_backward: int | None
    steps_accepted: int | None
    steps_rejected: int | None
    steps_backward: int | None = None

    @property
    def f_calls(self) -> int | None:
        """Forward and backward together."""
        return _sum(self.f_calls_forward, self.f_calls_backward)

    @property
    def floor_calls(self) -> tuple[int, int] | None:
        """The bare calls that the gradient cannot avoid: f alone, and f with its vector-Jacobian product."""
        calls, vjps = self.f_calls, _sum(self.vjps_forward, self.vjps_backward)
        return None if calls is None or vjps is None else (max(0, calls - vjps), vjps)


def total(counts: Sequence[Counts]) -> Counts:
    """Return the sum over several solves."""
    return Counts(**{f.name: _sum(*(getattr(one, f.name) for one in counts)) for f in fields(Counts)})


def _sum(*numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
