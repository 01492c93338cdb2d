"""The power law that fits a series best: its exponent and the confidence interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

FEWEST = 3
"""Values of x that an interval takes: a line through two leaves no residual to estimate the error from."""


@dataclass(frozen=True)
class Exponent:
    """The p of a growth like x^p, and half the width of its 95 % confidence interval."""

    power: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.power:.2f} ± {self.half_width:.2f}"


def fit(points: Sequence[tuple[float, float]]) -> Exponent:
    """Fit a line through (log x, log y) by least squares; the interval of its slope is Student's.

    A quantity that is not a power of x bends the line: then the exponent is that of the range measured, and the
    interval is wide. Raise ValueError for fewer than FEWEST different x, and for numbers that are not positive.
    """
    if len({x for x, _ in points}) < FEWEST or any(value <= 0 for point in points for value in point):
        raise ValueError(f"an exponent takes {FEWEST} different x or more, and positive numbers; got {points}")
    x, y = np.log(np.array(points, dtype=float)).T
    line: Any = stats.linregress(x, y)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(points) - 2))
    power, error = float(line.slope), float(line.stderr)
    return Exponent(power, quantile * (0.0 if math.isnan(error) else error))
