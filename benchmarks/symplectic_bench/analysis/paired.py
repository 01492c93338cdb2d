"""Ratios of times that were measured in the same rounds, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and a 95 % bootstrap interval of that median."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def paired_ratio(samples: Sequence[float], others: Sequence[float]) -> Ratio | None:
    """Return the ratio of samples to others, round by round; None without at least two rounds of both.

    Rounds are drawn with replacement, always the same draws, so that equal samples give an equal interval.
    """
    if min(len(samples), len(others)) < 2 or len(samples) != len(others):
        return None
    ratios = np.array(samples) / np.array(others)
    drawn = np.random.default_rng(0).integers(len(ratios), size=(DRAWS, len(ratios)))
    medians = np.median(ratios[drawn], axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(float(np.median(ratios)), float(low), float(high))
