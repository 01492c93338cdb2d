"""Pareto fronts."""

import math

from symplectic_bench.analysis.pareto import pareto_front


def test_no_other_point_beats_one_on_the_front_in_both_coordinates():
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 4.0), (4.0, 1.0), (math.nan, 0.0), (2.0, 2.0)]
    assert pareto_front(points) == [1, 2, 0]
    assert pareto_front([]) == []


def test_a_difference_within_the_interval_does_not_decide():
    """One point in 0.98 of the time of another with half the memory: on the front only if that is beyond doubt."""
    points = [(0.98, 4.0), (1.0, 2.0), (1.5, 1.0)]
    assert pareto_front(points) == [0, 1, 2]
    assert pareto_front(points, lambda i, j: points[i][0] < 0.95 * points[j][0]) == [1, 2]
    assert pareto_front(points, lambda i, j: points[i][0] < 0.99 * points[j][0]) == [0, 1, 2]


def test_a_point_is_compared_with_those_on_the_front_and_not_with_one_that_gave_way():
    """The middle is level with both of its neighbours, which differ: it gives way to the leaner, the fast one stays."""
    points = [(1.0, 3.0), (1.04, 2.0), (1.08, 1.0)]
    assert pareto_front(points, lambda i, j: points[i][0] < 0.95 * points[j][0]) == [0, 2]


def test_level_and_with_more_memory_is_off_the_front_even_if_it_seems_slower():
    points = [(1.02, 2.0), (1.0, 1.0)]
    assert pareto_front(points, lambda i, j: points[i][0] < 0.95 * points[j][0]) == [1]
