"""Ratios of every two cells of a group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from symplectic_bench.analysis.paired import Ratio
from symplectic_bench.analysis.rounds import time_ratio
from symplectic_bench.analysis.summary import Line, ratio


@dataclass(frozen=True)
class Pair:
    """The second of two cells over the first.

    time: the ratio of their times, None if one was not timed; in_rounds: the same with its limits, if both were timed
    in the same rounds. memory: the ratio of their peaks of live tensors, None if one is unknown, or fitted and the
    other exact.
    """

    first: Line
    second: Line
    time: float | None
    in_rounds: Ratio | None
    memory: float | None


def pairs(lines: Sequence[Line]) -> Iterator[Pair]:
    """Yield every two comparable cells of a group that one machine measured, in the order of the lines."""
    groups: dict[tuple[str, str | None], list[Line]] = {}
    for line in lines:
        if line["comparable"]:
            groups.setdefault((line["group_id"], line["environment"]), []).append(line)
    for group in groups.values():
        for first, second in combinations(group, 2):
            yield _pair(first, second)


def _pair(first: Line, second: Line) -> Pair:
    found = time_ratio(second, first)
    time = ratio(second["total_s"], first["total_s"]) if found is None else found.median
    alike = first["peak_tensor_source"] == second["peak_tensor_source"]
    memory = ratio(second["peak_tensor_bytes"], first["peak_tensor_bytes"]) if alike else None
    return Pair(first, second, time, found, memory)
