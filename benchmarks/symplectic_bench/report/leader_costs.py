"""The costs of our gradient beside those of the gradient that a user starts from, where they are known to differ."""

from collections.abc import Sequence

from symplectic_bench.analysis.cell_ratios import Pair, pairs
from symplectic_bench.analysis.rounds import time_statistics
from symplectic_bench.analysis.summary import LEADER, PEER, Line, ratio
from symplectic_bench.analysis.verdicts import OVER_PEER, Verdict, verdicts
from symplectic_bench.report.headlines import Comparison, Headline

OTHERS = (PEER, "ours backprop")
"""With which LEADER is compared: the first of these in its group."""

EXPLAINED = (
    " A title compares symplectic with torchdiffeq's backprop, or with ours where that was not measured. Their times"
    " count only where the rounds decide them; where nothing follows, the title is the problem's name."
)
"""The sentences of a caption that explain titles with such comparisons."""


def are_decided(lines: Sequence[Line], name: str = OVER_PEER) -> list[bool]:
    """Return whether the rounds decide each line's ratio of times: there is a verdict, and the interval leaves 1 out.

    The verdicts (analysis.verdicts) are corrected for the number of lines. `name` is the ratio.
    """
    found = zip(lines, verdicts(lines, name), strict=True)
    return [
        verdict in (Verdict.FIRST, Verdict.BEHIND) and not line[f"{name}_low"] <= 1 <= line[f"{name}_high"]
        for line, verdict in found
    ]


def leader_costs(groups: Sequence[Sequence[Line]], places: Sequence[str] = ()) -> list[Comparison | None]:
    """Return LEADER's costs as multiples of another gradient's for each group of cells, None without such a pair.

    Memory is compared if both peaks are exact or both fitted; time if are_decided, for all groups together; the
    error if the reference's own is at most a tenth of both. places: words for each group that follow LEADER's name.
    """
    found = [_pair(cells) for cells in groups]
    timed = [{} if one is None else one.second | time_statistics(OVER_PEER, one.second, one.first) for one in found]
    decided = iter(are_decided([line for line in timed if line]))
    costs: list[Comparison | None] = []
    for pair, line, place in zip(found, timed, places or [""] * len(found), strict=True):
        time = line[OVER_PEER] if pair is not None and next(decided) else None
        costs.append(None if pair is None else _comparison(pair, time, place))
    return costs


def compared(costs: Comparison | None, *wanted: str) -> Headline | None:
    """Return the headline that says these costs, None unless all of them are compared."""
    return None if costs is None else costs.of(*wanted)


def _pair(cells: Sequence[Line]) -> Pair | None:
    """Return LEADER's cell over the other's, None unless one machine measured both and their forward passes agree."""
    known = {cell["name"]: cell for cell in cells}
    leader, other = known.get(LEADER), next((known[name] for name in OTHERS if name in known), None)
    return next(pairs([other, leader]), None) if leader and other else None


def _comparison(pair: Pair, time: float | None, place: str) -> Comparison:
    costs = {"memory": pair.memory, "time": time, "error": _error(pair.second, pair.first)}
    who, other = (line["name"].removeprefix("ours ") for line in (pair.second, pair.first))
    return Comparison(f"{who}{place}", other, tuple((cost, r, r) for cost, r in costs.items() if r))


def _error(leader: Line, other: Line) -> float | None:
    errors = [line["error_true"] for line in (leader, other)]
    bars = [line["error_true_bar"] or 0.0 for line in (leader, other)]
    return ratio(*errors) if all(errors) and max(bars) <= min(errors) / 10 else None
