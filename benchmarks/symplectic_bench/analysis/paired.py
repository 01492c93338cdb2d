"""Ratios of times that were measured in the same rounds, with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST_ROUNDS = 10
"""The fewest rounds that give an interval: of fewer, the bootstrap's intervals are too short."""

DRAWS = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios.

    low and high are a 95 % bootstrap interval of that median; of fewer than FEWEST_ROUNDS rounds, the smallest and the
    largest ratio, which support no claim.
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def has_interval(self) -> bool:
        return self.rounds >= FEWEST_ROUNDS

    def __str__(self) -> str:
        if self.has_interval:
            return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def paired_ratio(samples: Sequence[float], others: Sequence[float]) -> Ratio | None:
    """Return the ratio of samples to others, round by round; None unless both have the same two rounds or more.

    Also None if a sample is not a positive time. Equal samples give an equal interval.
    """
    if min(len(samples), len(others)) < 2 or len(samples) != len(others):
        return None
    if not all(0 < one < math.inf for one in (*samples, *others)):
        return None
    ratios = np.array(samples) / np.array(others)
    low, high = _interval(ratios) if len(ratios) >= FEWEST_ROUNDS else (ratios.min(), ratios.max())
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))


def _interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval: BCa's correction by the jackknife is not valid for a median."""
    return stats.bootstrap(
        (ratios,), np.median, n_resamples=DRAWS, confidence_level=CONFIDENCE, method="percentile", rng=0
    ).confidence_interval
