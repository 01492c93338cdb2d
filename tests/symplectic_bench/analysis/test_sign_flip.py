"""The sign-flip test against enumerations by hand and by SciPy, and the differences that it sees."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from symplectic_bench.analysis.sign_flip import EXACT_ROUNDS, POWER, p_value, smallest_effect, smallest_p_value


def enumerated(log_ratios):
    """Return the share of all sign patterns whose sum is at least as far from zero."""
    sums = [abs(math.fsum(s * x for s, x in zip(signs, log_ratios, strict=True))) for signs in SIGNS[len(log_ratios)]]
    observed = abs(math.fsum(log_ratios))
    return sum(one >= observed - 1e-9 for one in sums) / len(sums)


def students(log_ratios):
    _, found = stats.ttest_1samp(log_ratios, 0.0)
    return found


SIGNS = {n: list(itertools.product((1, -1), repeat=n)) for n in (3, 10)}


def test_three_rounds_by_hand():
    """Of 3, 2, -1 the sum is 4: of the eight patterns +-(3, 2, 1) has 6, +-(3, 2, -1) has 4, the others 2 or 0."""
    assert p_value(np.array([3.0, 2.0, -1.0])) == 0.5


def test_ten_rounds_that_agree_have_the_smallest_p_value():
    assert p_value(np.linspace(0.01, 0.1, 10)) == smallest_p_value(10) == 2 / 1024


@pytest.mark.parametrize("seed", range(5))
def test_p_values_of_ten_rounds_are_exact(seed):
    log_ratios = np.random.default_rng(seed).normal(0.02 * seed, 0.05, 10)
    assert p_value(log_ratios) == enumerated(log_ratios)
    theirs = stats.permutation_test(
        (log_ratios,), np.mean, permutation_type="samples", n_resamples=2**10, vectorized=True
    )
    assert p_value(log_ratios) == pytest.approx(theirs.pvalue)


def test_equal_times_have_a_p_value_of_one():
    assert p_value(np.zeros(10)) == 1.0


def test_ties_count_as_equally_extreme():
    """Of ten equal steps with one sign turned, the 2 patterns of ten and the 20 of nine are as extreme."""
    assert p_value(np.array([-0.1] + [0.1] * 9)) == 22 / 1024


def test_more_rounds_are_sampled_and_agree_with_students_test():
    log_ratios = np.random.default_rng(1).normal(0.03, 0.05, EXACT_ROUNDS + 10)
    assert p_value(log_ratios) == pytest.approx(students(log_ratios), abs=0.01)
    assert p_value(log_ratios) == p_value(log_ratios)


@pytest.mark.parametrize(("rounds", "level"), [(10, 0.05), (12, 0.05 / 75), (16, 0.01)])
def test_the_smallest_effect_is_seen_in_four_of_five_runs(rounds, level):
    """Of 500 runs of other noise; the standard error is 1.8 %, and that of the simulated effect's power 2.8 %."""
    noise = np.random.default_rng(7).standard_normal((500, rounds))
    seen = np.mean([p_value(one) <= level for one in noise + smallest_effect(rounds, level)])
    assert seen == pytest.approx(POWER, abs=0.08)


def test_of_many_rounds_it_is_the_effect_that_students_test_sees():
    """Of 2,000 runs, with a standard error of 0.9 %: the formula for the power is itself off by about as much."""
    runs = np.random.default_rng(7).standard_normal((2000, EXACT_ROUNDS + 4)) + smallest_effect(EXACT_ROUNDS + 4, 0.01)
    assert np.mean(students(runs.T) <= 0.01) == pytest.approx(POWER, abs=0.04)


def test_no_effect_is_seen_at_a_level_that_agreement_does_not_reach():
    assert smallest_effect(10, 2 / 1024) < math.inf
    assert smallest_effect(10, 1 / 1024) == math.inf
