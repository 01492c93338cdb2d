"""What a backward pass computes, as a multiple of its bare calls in the same rounds: a ratio with an interval.

It is of the processor's time, since the clock's says little on a machine that does other work too: there the shares of
a long pass and of a short call differ by a factor of ten.
"""

from symplectic_bench.analysis.summary import comparable
from symplectic_bench.contenders.contender_records import contender_record
from symplectic_bench.rows.record import Measurement

FEWEST_ROUNDS = 5
"""The least number of rounds that give an interval: all lie on one side of the median in one of 16 runs."""

Interval = tuple[float, float]


def backward_over_calls(row: Measurement) -> Interval | None:
    """Return the least and the largest ratio over the rounds, each divided by the bare calls timed in that round.

    None for a contender that is not ours, for several threads, which spin, and where there are too few rounds.
    """
    counted = (row.f_calls_backward, row.vjps_backward)
    samples = (row.backward_cpu_samples_s, row.f_call_cpu_samples_s, row.vjp_call_cpu_samples_s)
    if not _is_of_ours(row) or None in counted or None in samples:
        return None
    f_calls, vjps = (number or 0 for number in counted)
    rounds = zip(*(times or () for times in samples), strict=False)  # the last round may lack its bare calls
    bare = [(took_s, max(0, f_calls - vjps) * f_s + vjps * vjp_s) for took_s, f_s, vjp_s in rounds]
    ratios = [took_s / calls_s for took_s, calls_s in bare if calls_s > 0.0]
    return (min(ratios), max(ratios)) if len(ratios) >= FEWEST_ROUNDS else None


def backward_waits(row: Measurement) -> int | None:
    """Return how often the backward pass gave up its core in the best round: it sleeps, or waits for something."""
    rounds = len(row.backward_cpu_samples_s or ())
    return row.backward_waits if _is_of_ours(row) and rounds >= FEWEST_ROUNDS else None


def _is_of_ours(row: Measurement) -> bool:
    return contender_record(row.contender).ours and comparable(row) and row.threads == 1
