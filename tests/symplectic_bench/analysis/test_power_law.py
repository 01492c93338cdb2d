import math

import pytest

from symplectic_bench.analysis.power_law import Exponent, fit


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, -2.0])
def test_a_power_law_is_fitted_exactly(power):
    found = fit([(x, 3.0 * x**power) for x in (1, 2, 4, 32)])
    assert (found.power, found.half_width) == (pytest.approx(power, abs=1e-12), pytest.approx(0, abs=1e-7))


def test_the_interval_is_that_of_students_distribution():
    # y = x e^{+-1} about log-log slope 1: residuals (1, -2, 1) / 3 for x = 1, e, e^2, so s^2 = 2/3 with one degree of
    # freedom, the slope's error is sqrt(s^2 / 2), and Student's quantile at 97.5 % is 12.706.
    points = [(1.0, math.exp(1 / 3)), (math.e, math.exp(1 - 2 / 3)), (math.e**2, math.exp(2 + 1 / 3))]
    found = fit(points)
    assert found.power == pytest.approx(1.0)
    assert found.half_width == pytest.approx(12.706 * math.sqrt(2 / 3 / 2), rel=1e-4)


def test_data_that_are_no_power_of_x_widen_the_interval():
    straight, bent = fit([(x, x) for x in (1, 2, 4, 8)]), fit([(x, x + 5) for x in (1, 2, 4, 8)])
    assert bent.power < 0.7 and bent.half_width > 0.1 > straight.half_width


@pytest.mark.parametrize("points", [[(1, 1), (2, 2)], [(1, 1), (1, 2), (2, 2)], [(1, 1), (2, 0), (3, 1)], []])
def test_too_few_points_and_numbers_without_a_logarithm_are_refused(points):
    with pytest.raises(ValueError, match="an exponent needs at least 3 different x, and positive numbers; got"):
        fit(points)


def test_an_exponent_is_printed_with_its_half_width():
    assert str(Exponent(0.987, 0.0123)) == "0.99 ± 0.01"
