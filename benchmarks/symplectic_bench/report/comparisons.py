"""Ratios of times as tables show them: with what their rounds say, and a verdict."""

from collections.abc import Sequence

from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.analysis.summary import Line
from symplectic_bench.analysis.verdicts import (
    ERROR_RATE,
    OVER_PEER,
    is_judged,
    rounds_needed,
    smallest_ratios,
    verdicts,
)
from symplectic_bench.report.numerals import ratio_with_limits, three_digits

WRITTEN = "written_"
"""What the keys of formatted ratios begin with."""


def with_written_ratios(line: Line, names: Sequence[str]) -> Line:
    """Return the line with the text of each ratio, under WRITTEN and its name; None if the ratio is unknown.

    A mean of ratios, which has no rounds of its own, has limits only if each of them has an interval.
    """
    written: Line = {}
    for name in names:
        value, low, high = (line.get(key) for key in (name, f"{name}_low", f"{name}_high"))
        rounds = line.get(f"{name}_rounds", FEWEST_ROUNDS)
        is_interval = rounds is not None and rounds >= FEWEST_ROUNDS
        written[WRITTEN + name] = None if value is None else ratio_with_limits(value, low, high, is_interval)
    return line | written


def with_verdicts(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with their verdicts."""
    return [line | {"verdict": verdict} for line, verdict in zip(lines, verdicts(lines), strict=True)]


def without_written(line: Line) -> Line:
    """Return the line without the texts of its ratios."""
    return {key: value for key, value in line.items() if not key.startswith(WRITTEN)}


def statistics_words(lines: Sequence[Line]) -> str:
    """Explain, for a caption, the limits and the verdicts of these lines; an empty string if they compare nothing."""
    if all(line["verdict"] is None for line in lines):
        return ""
    limits = (
        f" Of a time: the median of the ratios within a round, with (its 95 % bootstrap interval) from {FEWEST_ROUNDS}"
        " rounds on, else [the smallest, the largest] and no verdict; without limits if the floor is an estimate."
    )
    return f"{limits} {words_on_test(lines, 'against the peer')}" if any(map(is_judged, lines)) else limits


def words_on_test(lines: Sequence[Line], heading: str, name: str = OVER_PEER) -> str:
    """Explain the test that gives the verdicts under this heading, and how small a difference it would have seen.

    name is the ratio that is judged, in one of the lines at least.
    """
    comparisons = sum(is_judged(line, name) for line in lines)
    test = (
        f"{heading}: first or behind if a sign-flip test of the paired log ratios rejects equality at"
        f" {100 * ERROR_RATE:g} % after Holm's correction for the table's {comparisons} comparisons, else level."
    )
    seen = smallest_ratios(lines, name)
    if not seen:
        return f"{test} So many comparisons need {rounds_needed(comparisons)} rounds for a verdict."
    least, most = (three_digits(100 * (found - 1)) for found in (min(seen), max(seen)))
    return (
        f"{test} The smallest difference that this run would have seen in four of five cases is {least} to"
        f" {most} %, depending on the row."
    )
