"""Numbers as people read them: three significant digits."""

import math
from typing import Any

MISSING = "-"
"""What stands where there is no number."""


def digits(value: float | None, scale: float = 1.0) -> str:
    """Three significant digits of value / scale, written out from 0.001 to a million: 0.0123, 1.50, 1230."""
    if value is None or math.isnan(value):
        return MISSING
    value = value / scale
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    rounded = float(f"{value:.2e}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def scientific(value: float | None) -> str:
    return MISSING if value is None or math.isnan(value) else f"{value:.2e}"


def count(value: float | None) -> str:
    return MISSING if value is None else str(int(value))


def milliseconds(value: float | None) -> str:
    return digits(value, 1e-3)


def mebibytes(value: float | None) -> str:
    return digits(value, 2**20)


def text(value: Any) -> str:
    return MISSING if value is None else str(value)


def yes_no(value: bool | None) -> str:
    return MISSING if value is None else "yes" if value else "no"
