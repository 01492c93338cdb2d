"""Pareto fronts of two costs."""

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices, from left to right, of the points that no other beats in both coordinates; less is better.

    Of equal points the first counts. A point with a NaN is never on the front.
    """
    front: list[int] = []
    best = math.inf
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    for i in sorted(known, key=lambda i: (*points[i], i)):
        if points[i][1] < best:
            best = points[i][1]
            front.append(i)
    return front
