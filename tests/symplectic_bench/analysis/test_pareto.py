"""Pareto fronts."""

import math

from symplectic_bench.analysis.pareto import pareto_front


def test_a_pareto_front_holds_what_nothing_beats_in_both():
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 4.0), (4.0, 1.0), (math.nan, 0.0), (2.0, 2.0)]
    assert pareto_front(points) == [1, 2, 0]
    assert pareto_front([]) == []
