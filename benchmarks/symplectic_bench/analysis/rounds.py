"""The rounds in which cells of a group were timed in turns: which cells share them, and the ratios of their times."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from symplectic_bench.analysis.paired import Ratio, paired_ratio
from symplectic_bench.analysis.sign_flip import p_value
from symplectic_bench.spec.cell import FIRST_ITERATIONS

Timing = Mapping[str, Any]
"""A line of a summary, or the part of it that TIMING names."""

SAMPLES = ("forward_samples_s", "backward_samples_s", "total_samples_s")
PROCESS = ("attempt", "environment", "f_call_s", "vjp_call_s")
"""What only rows of one process have in common: it times the bare calls in each of its rounds."""

TIMING = (*SAMPLES, *PROCESS, "losses", "total_s")

ITERATIONS = ("total_samples_s", "cold_iterations")
"""What a trained network's row says of the time of each iteration."""


def round_times(timing: Timing) -> list[float]:
    """Return the time of each round, forward and backward together; an empty list if the cell was not timed."""
    forward, backward, total = (timing[name] for name in SAMPLES)
    if forward and backward:
        return [sum(passes) for passes in zip(forward, backward, strict=False)]
    return total or []


def in_turns(timing: Timing, other: Timing) -> bool:
    """Return whether two cells of a group were timed in the same rounds, not in two runs or in training."""
    same_process = all(timing[name] == other[name] for name in PROCESS)
    return same_process and not timing["losses"] and len(round_times(timing)) == len(round_times(other))


def time_ratio(timing: Timing, other: Timing) -> Ratio | None:
    """Return the ratio of the times of two cells of a group, or None if they were not timed in the same rounds."""
    return paired_ratio(round_times(timing), round_times(other)) if in_turns(timing, other) else None


def iteration_ratios(timing: Timing, other: Timing) -> list[float]:
    """Return the ratios of the times of the first iterations that two trained networks have, warm ones if possible.

    The iterations of a turn are not independent rounds.
    """
    pairs = list(zip(timing["total_samples_s"] or [], other["total_samples_s"] or [], strict=False))[:FIRST_ITERATIONS]
    cold = {*(timing["cold_iterations"] or []), *(other["cold_iterations"] or [])}
    warm = [pair for i, pair in enumerate(pairs) if i not in cold]
    return [own / its for own, its in warm or pairs if its]


def time_statistics(name: str, timing: Timing, other: Timing) -> dict[str, Any]:
    """Return the ratio of two cells' times under this name, and beside it what their rounds say of it.

    <name>_low, _high and _rounds are those of paired.Ratio, _mean is the geometric mean of the rounds' ratios,
    _log_spread the standard deviation of their logarithms, and _p_value that of the sign-flip test, if there are
    paired.FEWEST_ROUNDS rounds or more. Without rounds in common the ratio is that of the medians, alone.
    """
    found = time_ratio(timing, other)
    if found is None:
        own, its = timing["total_s"], other["total_s"]
        return {name: None if own is None or not its else own / its}
    logs = np.log(round_times(timing)) - np.log(round_times(other))
    line = {name: found.median} | {f"{name}_{key}": getattr(found, key) for key in ("low", "high", "rounds")}
    line |= {f"{name}_mean": float(np.exp(logs.mean())), f"{name}_log_spread": float(logs.std(ddof=1))}
    return line | ({f"{name}_p_value": p_value(logs)} if found.has_interval else {})


def is_faster(timing: Timing, other: Timing) -> bool:
    """Return whether a cell is faster than another of its group, by more than the rounds' limits if it has them."""
    found = time_ratio(timing, other)
    if found is not None:
        return found.high < 1
    return (timing["total_s"] or math.inf) < (other["total_s"] or math.inf)
