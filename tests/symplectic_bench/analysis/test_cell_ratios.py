"""Ratios of every two cells of a group: which there are, and where they come from."""

from dataclasses import replace

import pytest

from symplectic_bench.analysis.cell_ratios import pairs
from symplectic_bench.analysis.summary import lines_of, summarize
from tests.symplectic_bench.sample_rows import group

THREE = [("ours", "aca"), ("ours", "stages"), ("torchdiffeq", "backprop")]


def found(rows):
    return list(pairs(lines_of(summarize(rows))))


def test_every_two_cells_of_a_group_are_a_pair_in_the_order_of_the_lines():
    rows = [*group(THREE), *group(THREE, rtol=1e-3)]
    names = [(pair.first["name"], pair.second["name"]) for pair in found(rows)]
    one, two, three = "ours aca", "ours stages", "torchdiffeq backprop"
    assert names == [(one, two), (one, three), (two, three)] * 2


def test_a_ratio_is_the_seconds_over_the_firsts_with_limits_if_they_took_turns():
    first, second = group(THREE[:2])
    (pair,) = found([first, second])
    assert pair.time == pytest.approx((second.total_s or 0) / (first.total_s or 1))
    assert pair.in_rounds is not None and pair.in_rounds.rounds == 5
    assert pair.memory == (second.peak_tensor_bytes or 0) / (first.peak_tensor_bytes or 1)
    (pair,) = found([first, replace(second, f_call_s=1.0)])  # timed in another process
    assert pair.time == pytest.approx((second.total_s or 0) / (first.total_s or 1)) and pair.in_rounds is None


def test_a_cell_without_a_time_has_a_ratio_of_memory_only():
    first, second = group(THREE[:2])
    untimed = replace(second, total_s=None, forward_samples_s=None, backward_samples_s=None)
    (pair,) = found([first, untimed])
    assert pair.time is None and pair.memory is not None
