"""The pieces of a solution between outputs and jumps, in which it is smooth, for solvers that know of neither."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from symplectic_bench.problems.problem import Problem


@dataclass(frozen=True)
class Piece:
    """The times from start to end, which may be the earlier one. output: whether the end is one of the problem's t."""

    start: float
    end: float
    output: bool

    def inside(self, t: float) -> float:
        """Return t, or the last number before the end if t is the end: there f may jump, and then has its new value."""
        last = float(np.nextafter(self.end, self.start))
        return min(t, last) if self.end > self.start else max(t, last)


def pieces(problem: Problem) -> Iterator[Piece]:
    """Yield the pieces in the order in which they are solved."""
    outputs = problem.t.tolist()
    stops = sorted({*outputs, *problem.jumps}, reverse=outputs[-1] < outputs[0])
    for start, end in pairwise(stops):
        yield Piece(start, end, end in outputs)
