"""Pareto fronts of two costs."""

import math
from collections.abc import Callable, Sequence

Point = tuple[float, float]


def pareto_front(points: Sequence[Point], is_less: Callable[[int, int], bool] | None = None) -> list[int]:
    """Return the indices, from left to right, of the points on the front; less is better in both coordinates.

    is_less tells whether one point's x is less than another's beyond doubt, given both indices; by default any
    difference counts. y is exact. A point is on the front if its x is less than that of every point on the front with a
    smaller y: one that only seems to be less gives way to the smaller y. Of equal points the first counts. A point with
    a NaN is never on the front.
    """
    less = is_less or (lambda i, j: points[i][0] < points[j][0])
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    front: list[int] = []
    for i in sorted(known, key=lambda i: (points[i][1], points[i][0], i)):
        if all(less(i, j) for j in front):
            front.append(i)
    return sorted(front, key=lambda i: points[i])
