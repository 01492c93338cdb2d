"""Ratios of paired samples: the machine's drift cancels, and the interval is that of the rounds."""

import numpy as np
import pytest

from symplectic_bench.analysis.paired import FEWEST_ROUNDS, paired_ratio


def test_a_drift_that_both_share_cancels():
    drift = np.linspace(1, 5, 11)
    found = paired_ratio(list(3 * drift), list(2 * drift))
    assert (found.median, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.rounds == 11 and found.has_interval


def test_the_median_is_that_of_the_rounds_and_not_of_the_medians():
    found = paired_ratio([1.0, 4.0, 9.0], [1.0, 1.0, 3.0])  # ratios 1, 4, 3; of the medians 4
    assert found.median == 3.0


def test_fewer_than_ten_rounds_have_a_range_and_no_interval():
    ratios = [1.3, 0.9, 1.1, 1.0, 1.2, 0.8, 1.4, 1.5, 0.7]
    found = paired_ratio(ratios, [1.0] * len(ratios))
    assert (found.low, found.high, found.rounds, found.has_interval) == (0.7, 1.5, FEWEST_ROUNDS - 1, False)
    assert str(found) == "1.1 [0.7, 1.5]"


def test_ten_rounds_have_an_interval_within_their_range():
    ratios = [1.3, 0.9, 1.1, 1.0, 1.2, 0.8, 1.4, 1.5, 0.7, 1.15]
    found = paired_ratio(ratios, [1.0] * len(ratios))
    assert found.has_interval and 0.7 < found.low < found.median < found.high < 1.5
    assert str(found) == f"1.12 ({found.low:.3g} to {found.high:.3g})"


@pytest.mark.parametrize("rounds", [10, 12, 15])
def test_the_interval_holds_the_true_ratio_in_about_95_of_100_runs(rounds):
    """Of 400 runs, 380 +- 4.4 if exact. The bootstrap of a median is discrete and a little off on so few rounds."""
    rng, inside, truth = np.random.default_rng(rounds), 0, 0.8
    for _ in range(400):
        drift = np.exp(rng.normal(0, 0.5, rounds))  # far more than the spread of the ratios
        ours, theirs = drift * np.exp(rng.normal(0, 0.05, (2, rounds)))
        found = paired_ratio(list(truth * ours), list(theirs))
        inside += found.low <= truth <= found.high
    assert 0.915 * 400 <= inside <= 0.985 * 400


def test_the_median_of_many_rounds_is_near_the_true_ratio():
    """The median of 200 ratios with a spread of 7 % has a standard error of 0.6 %; five of them are allowed."""
    rng = np.random.default_rng(3)
    ours, theirs = np.exp(rng.normal(0, 0.05, (2, 200)))
    assert paired_ratio(list(0.8 * ours), list(theirs)).median == pytest.approx(0.8, rel=0.03)


def test_equal_samples_give_an_equal_interval():
    samples = [1.0, 2.0, 3.0, 5.0] * 3, [1.0, 1.0, 2.0, 2.0] * 3
    assert paired_ratio(*samples) == paired_ratio(*samples)


@pytest.mark.parametrize(
    ("samples", "others"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0], [1.0, 0.0]),
        ([1.0, -2.0], [1.0, 1.0]),
        ([1.0, float("nan")], [1.0, 1.0]),
        ([1.0, float("inf")], [1.0, 1.0]),
    ],
)
def test_too_few_unpaired_or_impossible_samples_have_no_ratio(samples, others):
    assert paired_ratio(samples, others) is None
