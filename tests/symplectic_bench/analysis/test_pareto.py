"""Pareto fronts."""

import math

from symplectic_bench.analysis.pareto import pareto_front


def test_no_other_point_beats_one_on_the_front_in_both_coordinates():
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 4.0), (4.0, 1.0), (math.nan, 0.0), (2.0, 2.0)]
    assert pareto_front(points) == [1, 2, 0]
    assert pareto_front([]) == []
