"""Which cells were timed in the same rounds, and which of two is the faster."""

from dataclasses import replace

import pytest

from symplectic_bench.analysis.rounds import in_turns, is_faster, round_times, time_ratio
from symplectic_bench.analysis.summary import lines_of, summarize
from tests.symplectic_bench.sample_rows import a_cell, a_row


def pair(ours, theirs, **changes):
    """Return the lines of two cells with these times of the rounds; changes are of the second row."""
    rows = []
    for contender, times in (("ours", ours), ("torchdiffeq", theirs)):
        row = a_row(a_cell(contender=contender, gradient="backprop"), total_s=sorted(times)[len(times) // 2])
        rows.append(
            replace(row, forward_samples_s=[t / 4 for t in times], backward_samples_s=[3 * t / 4 for t in times])
        )
    one, other = lines_of(summarize([rows[0], replace(rows[1], **changes)]))
    return one, other


def test_a_round_is_forward_and_backward_together():
    one, other = pair([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert round_times(one) == [1.0, 2.0, 3.0]
    assert time_ratio(one, other).median == 2.0


def test_a_contender_without_separate_passes_has_the_rounds_of_both():
    whole = {"forward_samples_s": None, "backward_samples_s": None, "total_samples_s": [2.0, 4.0, 6.0]}
    one, other = pair([1.0, 2.0, 3.0], [9.0] * 3, **whole)
    assert time_ratio(one, other).median == 0.5


@pytest.mark.parametrize(
    "apart",
    [
        {"f_call_s": 5e-5},  # another process
        {"attempt": 2},
        {"environment": "a" * 12},
        {"forward_samples_s": [0.25, 0.5], "backward_samples_s": [0.75, 1.5]},
        {"forward_samples_s": None},
    ],
)
def test_rows_of_two_runs_are_not_paired(apart):
    one, other = pair([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], **apart)
    assert not in_turns(one, other) and time_ratio(one, other) is None


def test_a_difference_within_the_range_of_few_rounds_is_none():
    assert not is_faster(*pair([0.9, 0.9, 1.1], [1.0, 1.0, 1.0]))
    assert is_faster(*pair([0.9, 0.9, 0.99], [1.0, 1.0, 1.0]))
    assert not is_faster(*pair([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]))


def test_a_difference_beyond_the_interval_counts_although_the_ranges_overlap():
    assert is_faster(*pair([0.9] * 11 + [1.1], [1.0] * 12))


def test_times_of_two_runs_are_compared_by_their_medians():
    one, other = pair([0.9, 0.9, 1.1], [1.0, 1.0, 1.0], attempt=2)
    assert is_faster(one, other) and not is_faster(other, one)
