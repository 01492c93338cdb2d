"""The power law that best fits a series: its exponent and confidence interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

FEWEST = 3
"""The least number of values of x: a line through two points leaves no residual from which to estimate the error."""


@dataclass(frozen=True)
class Exponent:
    """The p of growth as x^p, and half the width of its 95 % confidence interval."""

    power: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.power:.2f} ± {self.half_width:.2f}"


def fit(points: Sequence[tuple[float, float]]) -> Exponent:
    """Fit a line through (log x, log y) by least squares, with a Student's t interval for its slope.

    If the quantity is not a power of x, the line is bent: the exponent is then that of the range measured, and the
    interval is wide. Raise ValueError for fewer than FEWEST different x, and for numbers that are not positive.
    """
    if len({x for x, _ in points}) < FEWEST or any(value <= 0 for point in points for value in point):
        raise ValueError(f"an exponent needs at least {FEWEST} different x, and positive numbers; got {points}")
    x, y = np.log(np.array(points, dtype=float)).T
    line: Any = stats.linregress(x, y)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(points) - 2))
    power, error = float(line.slope), float(line.stderr)
    return Exponent(power, quantile * (0.0 if math.isnan(error) else error))
