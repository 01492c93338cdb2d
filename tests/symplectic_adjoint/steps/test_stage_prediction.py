"""The guess from which Newton's iteration for an implicit stage starts."""

import pytest

from symplectic_adjoint import METHODS
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from symplectic_adjoint.steps.implicit import MOST_NODES, _extrapolation


@pytest.mark.parametrize("method", [m for m in IMPLICIT_METHODS if not METHODS[m].additive])
def test_a_slope_that_is_a_polynomial_of_the_time_is_predicted_exactly(method):
    c = METHODS[method].floats.c
    for i in range(1, METHODS[method].stages):
        terms = _extrapolation(c[: i + 1])
        assert all(j < i for j, _ in terms)
        degree = min(len(set(c[:i])), MOST_NODES)
        exact = 0 if len(terms) == 1 and c[terms[0][0]] != c[i] else degree - 1
        for power in range(exact + 1):
            assert sum(weight * c[j] ** power for j, weight in terms) == pytest.approx(c[i] ** power, abs=1e-13)
