"""The paired sign-flip test: whether the log ratios of paired rounds are centred on zero."""

from functools import cache

import numpy as np
from scipy import stats

EXACT_ROUNDS = 16
"""The most rounds of which every combination of signs is tried; of more, a random sample of this many."""

POWER = 0.8
"""The probability with which a run sees the smallest difference that it is said to be able to see."""

SIMULATED_RUNS = 200
"""Runs from which that difference is found, which places it within about 4 %."""


def p_value(log_ratios: np.ndarray) -> float:
    """Return the two-sided p-value of the mean, under the hypothesis that each round's sign is a fair coin."""
    if len(log_ratios) <= EXACT_ROUNDS:
        return float(_exact(log_ratios[None])[0])
    test = stats.permutation_test(
        (log_ratios,), np.mean, permutation_type="samples", n_resamples=2**EXACT_ROUNDS, rng=0, vectorized=True
    )
    return float(test.pvalue)


def smallest_p_value(rounds: int) -> float:
    """Return the p-value of rounds that all agree, the smallest that this number of rounds can give."""
    return 2.0 ** (1 - min(rounds, EXACT_ROUNDS))


@cache
def smallest_effect(rounds: int, level: float) -> float:
    """Return the mean log ratio that a test at this level detects with probability POWER.

    In units of the rounds' standard deviation, for normally distributed log ratios; infinite if no number of agreeing
    rounds reaches the level.
    """
    if smallest_p_value(rounds) > level:
        return np.inf
    if rounds > EXACT_ROUNDS:  # so many combinations that the test is as powerful as Student's
        return float((stats.t.ppf(1 - level / 2, rounds - 1) + stats.t.ppf(POWER, rounds - 1)) / rounds**0.5)
    noise = np.random.default_rng(0).standard_normal((SIMULATED_RUNS, rounds))
    low, high = 0.0, 10.0
    for _ in range(12):
        middle = (low + high) / 2
        seen = np.mean(_exact(noise + middle) <= level)
        low, high = (low, middle) if seen >= POWER else (middle, high)
    return high


def _exact(log_ratios: np.ndarray) -> np.ndarray:
    """Return the p-value of each line. The first sign stays: turning all signs changes no absolute sum."""
    sums = log_ratios[:, :1]
    for one in log_ratios.T[1:]:
        sums = np.concatenate([sums + one[:, None], sums - one[:, None]], axis=1)
    observed = np.abs(log_ratios.sum(axis=1)) * (1 - 1e-12)  # equal sums may differ by rounding
    return np.mean(np.abs(sums) >= observed[:, None], axis=1)
