"""Ratios of paired samples: the machine's drift cancels, and the interval is that of the rounds."""

import numpy as np
import pytest

from symplectic_bench.analysis.paired import paired_ratio


def test_a_drift_that_both_share_cancels():
    drift = np.linspace(1, 5, 9)
    found = paired_ratio(list(3 * drift), list(2 * drift))
    assert (found.median, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_median_is_that_of_the_rounds_and_not_of_the_medians():
    found = paired_ratio([1.0, 4.0, 9.0], [1.0, 1.0, 3.0])  # ratios 1, 4, 3; of the medians 4
    assert found.median == 3.0 and (found.low, found.high) == (1.0, 4.0)


def test_the_interval_holds_the_true_ratio_in_about_95_of_100_runs():
    """Of 200 runs of 15 rounds, 190 +- 6 if exact; a bootstrap of a median is a little short of it."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(200):
        found = paired_ratio(list(np.exp(0.1 * rng.standard_normal(15))), [1.0] * 15)
        inside += found.low <= 1.0 <= found.high
    assert 170 <= inside <= 199


def test_equal_samples_give_an_equal_interval():
    samples = [1.0, 2.0, 3.0, 5.0], [1.0, 1.0, 2.0, 2.0]
    assert paired_ratio(*samples) == paired_ratio(*samples)


@pytest.mark.parametrize(("samples", "others"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_too_few_or_unpaired_samples_have_no_ratio(samples, others):
    assert paired_ratio(samples, others) is None
