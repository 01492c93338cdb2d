"""Values formatted for people to read."""

import math
from typing import Any

MISSING = "-"
"""The text for an unknown value."""


def three_digits(value: float | None, scale: float = 1.0) -> str:
    """Format value / scale to three significant digits, without exponent from 0.001 to a million: 0.0123, 1230."""
    if value is None or math.isnan(value):
        return MISSING
    value = value / scale
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    rounded = float(f"{value:.2e}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def ratio_with_limits(value: float, low: float | None, high: float | None, is_interval: bool) -> str:
    """Format a ratio as 0.640 (0.620 to 0.661), with a confidence interval, or 0.640 [0.600, 0.710], with a range."""
    if low is None or high is None:
        return three_digits(value)
    limits = [three_digits(limit) for limit in (low, high)]
    return (
        f"{three_digits(value)} ({' to '.join(limits)})"
        if is_interval
        else f"{three_digits(value)} [{', '.join(limits)}]"
    )


def scientific(value: float | None) -> str:
    """Format a number as 1.23e-04."""
    return MISSING if value is None or math.isnan(value) else f"{value:.2e}"


def count_of(number: int, what: str) -> str:
    """Format a number of things: 1 cell, 2 cells."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def count(value: float | None) -> str:
    """Format a whole number."""
    return MISSING if value is None else str(int(value))


def milliseconds(value: float | None) -> str:
    """Format seconds as milliseconds."""
    return three_digits(value, 1e-3)


def mebibytes(value: float | None) -> str:
    """Format bytes as mebibytes."""
    return three_digits(value, 2**20)


def text(value: Any) -> str:
    """Format a value as it is."""
    return MISSING if value is None else str(value)


def yes_no(value: bool | None) -> str:
    """Format a truth value."""
    return MISSING if value is None else "yes" if value else "no"
