"""The answers to a suite's questions: ours against each peer, in time or in another cost beside the time."""

from collections.abc import Sequence

from symplectic_bench.analysis.rounds import time_statistics
from symplectic_bench.analysis.summary import FLOOR, Line, ratio
from symplectic_bench.analysis.verdicts import Verdict, verdicts
from symplectic_bench.contenders.contender_records import contender_record
from symplectic_bench.spec.question import AskedQuestion, By

TIME = "ours_over_time"
"""The ratio of our time to the line's, of which the rounds judge."""

COST = "ours_over_cost"
"""The ratio of our memory or error to the line's."""

COSTS: dict[By, str] = {"memory": "peak_tensor_bytes", "error": "error_true"}
"""What COST compares; nothing but the time if that decides."""

SAME = 0.01
"""Costs that differ by a hundredth or less are level: peaks of a few numbers, and references, are no more exact."""

LOSSES_FIRST = (Verdict.BEHIND, Verdict.TRADE, Verdict.NO_VERDICT, Verdict.LEVEL, Verdict.FIRST)


def answer(question: AskedQuestion, lines: Sequence[Line]) -> list[Line]:
    """Return the lines of the question's groups, group by group, with the comparison of ours with each peer.

    Each has TIME and its statistics, COST, and `verdict`: on our time, or for another cost on both, where BEHIND is
    more of one and no less of the other. They are None for our own lines, which are not compared, and for lines that
    are not comparable or were measured on another machine. Holm's correction is for all of the question's comparisons.

    Within a group ours comes first, then the peers, our greatest losses first, our other lines, and those without a
    comparison.
    """
    asked = [line for line in lines if line["group_id"] in question.ours]
    ours = {
        _machine_group(line): line for line in asked
        if line["comparable"] and line["name"] == question.ours[line["group_id"]]
    }  # fmt: skip
    chosen = [_compared(line, ours.get(_machine_group(line)), question.by) for line in asked]
    on_time = dict(zip(map(_key, chosen), verdicts(chosen, TIME), strict=True))
    judged = [line | {"verdict": _verdict(line, on_time[_key(line)], question.by)} for line in chosen]
    groups = list(dict.fromkeys(line["group_id"] for line in judged))
    return sorted(judged, key=lambda line: (groups.index(line["group_id"]), *_place(line, question)))


def _key(line: Line) -> tuple[str, str | None]:
    return line["cell_id"], line["environment"]


def _machine_group(line: Line) -> tuple[str, str | None]:
    return line["group_id"], line["environment"]


def _compared(line: Line, ours: Line | None, by: By) -> Line:
    nothing: Line = {TIME: None, COST: None}
    own = contender_record(line["contender"]).ours or line["contender"] == FLOOR
    if own or ours is None or not line["comparable"]:
        return line | nothing
    found = line | nothing | time_statistics(TIME, ours, line)
    if by == "time" or (by == "memory" and ours["peak_tensor_source"] != line["peak_tensor_source"]):
        return found  # a fitted peak is not compared with an exact one
    return found | {COST: ratio(ours[COSTS[by]], line[COSTS[by]])}


def _verdict(line: Line, on_time: Verdict | None, by: By) -> Verdict | None:
    """Return the verdict on the time, or on both costs."""
    if by == "time" or on_time in (None, Verdict.NO_VERDICT):
        return on_time
    if line[COST] is None:
        return None
    if abs(line[COST] - 1) <= SAME:
        return on_time
    on_cost = Verdict.FIRST if line[COST] < 1 else Verdict.BEHIND
    return on_cost if on_time in (on_cost, Verdict.LEVEL) else Verdict.TRADE


def loss(line: Line, by: By) -> tuple[float, float]:
    """Return how far ours is behind the line: in the cost that decides, then in time."""
    on_time = line[TIME] or 0.0
    return (on_time if by == "time" else line[COST] or 0.0), on_time


def _place(line: Line, question: AskedQuestion) -> tuple[int, float, float]:
    if line["name"] == question.ours[line["group_id"]]:
        return 0, 0.0, 0.0
    if line["verdict"] is not None:
        deciding, on_time = loss(line, question.by)
        return 1 + LOSSES_FIRST.index(line["verdict"]), -deciding, -on_time
    first_after = 1 + len(LOSSES_FIRST)
    return first_after + (not contender_record(line["contender"]).ours), 0.0, 0.0
