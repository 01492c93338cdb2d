"""Verdicts on the times of a table: which cells are ahead of the peer, level with it or behind it."""

import math
from collections.abc import Sequence
from enum import StrEnum

from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.analysis.sign_flip import smallest_effect, smallest_p_value
from symplectic_bench.analysis.summary import FLOOR, PEER, Line

ERROR_RATE = 0.05
"""The probability that a table has a wrong verdict at all, if no times differ."""


class Verdict(StrEnum):
    """How a time, or a cost beside a time, compares with that of a peer.

    LEVEL: no difference was seen, which is not to say that there is none. TRADE: less of one and more of the other.
    """

    FIRST = "first"
    LEVEL = "level"
    BEHIND = "behind"
    NO_VERDICT = "no verdict"
    TRADE = "a trade"


OVER_PEER = "time_over_peer"
"""The ratio of times that is judged if no other is named."""


def verdicts(lines: Sequence[Line], name: str = OVER_PEER) -> list[Verdict | None]:
    """Return the verdict on each line of a summary, None for a line that is not compared.

    name is the ratio that is judged, with its statistics (rounds.time_statistics) beside it. The lines that have it are
    compared, except those of FLOOR, and of PEER with itself.

    A line is FIRST or BEHIND if its rounds reject equality after Holm's correction for all comparisons of the lines.
    There is no verdict on fewer than FEWEST_ROUNDS rounds, nor on so few that not even agreement of all would do, nor
    where the interval of the median leaves 1 out and the rounds do not reject equality, as a few disturbed ones do.
    """
    judged = [place for place, line in enumerate(lines) if is_judged(line, name)]
    adjusted = dict(zip(judged, holm([lines[i][f"{name}_p_value"] for i in judged]), strict=True))
    found: list[Verdict | None] = []
    for place, line in enumerate(lines):
        if place not in adjusted:
            found.append(Verdict.NO_VERDICT if _is_compared(line, name) else None)
        elif smallest_p_value(int(line[f"{name}_rounds"])) > ERROR_RATE / len(judged):
            found.append(Verdict.NO_VERDICT)
        elif adjusted[place] > ERROR_RATE:
            level = line[f"{name}_low"] <= 1 <= line[f"{name}_high"]
            found.append(Verdict.LEVEL if level else Verdict.NO_VERDICT)
        else:
            found.append(Verdict.FIRST if line[f"{name}_mean"] < 1 else Verdict.BEHIND)
    return found


def smallest_ratios(lines: Sequence[Line], name: str = OVER_PEER) -> list[float]:
    """Return, for each comparison with a verdict, the smallest ratio above 1 that would have been seen.

    "Seen": called first or behind, in four runs of five, before any other comparison is decided.
    """
    judged = [line for line in lines if is_judged(line, name)]
    level = ERROR_RATE / max(1, len(judged))
    effects = [smallest_effect(int(line[f"{name}_rounds"]), level) for line in judged]
    spreads = [line[f"{name}_log_spread"] for line in judged]
    found = [e * spread for e, spread in zip(effects, spreads, strict=True) if math.isfinite(e)]
    return [math.exp(min(one, 700.0)) for one in found]


def rounds_needed(comparisons: int) -> int:
    """Return the fewest rounds that can give verdicts on this many comparisons."""
    return max(FEWEST_ROUNDS, math.ceil(1 + math.log2(comparisons / ERROR_RATE))) if comparisons else FEWEST_ROUNDS


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number by Holm's step-down method, in the same order.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979), 65-70.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _is_compared(line: Line, name: str) -> bool:
    itself = name == OVER_PEER and line["name"] == PEER
    return line.get(name) is not None and not itself and line["contender"] != FLOOR


def is_judged(line: Line, name: str = OVER_PEER) -> bool:
    """Return whether the line was compared in rounds enough for an interval."""
    return _is_compared(line, name) and line.get(f"{name}_p_value") is not None
