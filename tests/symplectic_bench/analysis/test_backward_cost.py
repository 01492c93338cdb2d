"""The backward pass's time over its bare calls, and how the gate compares it."""

from dataclasses import replace

import pytest

from symplectic_bench.analysis.backward_cost import FEWEST_ROUNDS, backward_over_calls
from symplectic_bench.analysis.baseline import (
    BACKWARD,
    WAITS,
    Baseline,
    cells_of,
    lines_of_rows,
    read_baseline,
    with_earlier_times,
    write_baseline,
)
from symplectic_bench.analysis.regression import Kind, compare
from tests.symplectic_bench.sample_rows import a_cell, a_row

ROUNDS = {
    "f_calls_backward": 30,
    "vjps_backward": 10,
    "backward_cpu_samples_s": [0.8, 0.4, 1.2, 0.5, 0.6],
    "f_call_cpu_samples_s": [0.01, 0.01, 0.02, 0.01, 0.01],
    "vjp_call_cpu_samples_s": [0.02, 0.02, 0.04, 0.02, 0.02],
}
"""Bare calls of 20 x 0.01 + 10 x 0.02 = 0.4 s, in the third round of 0.8 s: ratios 2, 1, 1.5, 1.25 and 1.5."""


def slowed(row, *factors):
    return replace(
        row, backward_cpu_samples_s=[f * x for f, x in zip(factors, row.backward_cpu_samples_s, strict=True)]
    )


@pytest.fixture
def row():
    return a_row(**ROUNDS)


@pytest.fixture
def baseline(row, tmp_path):
    write_baseline(tmp_path / "b.jsonl", Baseline(cells_of(lines_of_rows([row]))))
    return read_baseline(tmp_path / "b.jsonl")


def test_it_is_the_backward_time_over_the_bare_calls_of_each_round(row):
    assert backward_over_calls(row) == pytest.approx((1.0, 2.0))


@pytest.mark.parametrize(
    "change",
    [
        {"backward_cpu_samples_s": None},
        {"vjps_backward": None},
        {"forward_disagrees": True},
        {"f_call_cpu_samples_s": [0.01] * (FEWEST_ROUNDS - 1)},
        {"threads": 2},
    ],
)
def test_there_is_none_without_enough_rounds_or_counts(row, change):
    assert backward_over_calls(replace(row, **change)) is None


def test_there_is_none_for_others():
    assert backward_over_calls(a_row(a_cell(contender="torchdiffeq", gradient="backprop"), **ROUNDS)) is None


def test_a_backward_pass_slower_in_every_round_is_a_regression(row, baseline):
    (finding,) = compare([slowed(row, *[3.1] * 5)], baseline)  # its least ratio is 3.1, and 1.5 x 2 is allowed
    assert (finding.kind, finding.metric, finding.baseline) == (Kind.REGRESSION, BACKWARD, 2.0)
    assert finding.measured == pytest.approx(3.1) and "at most 3 in some round" in str(finding)


def test_a_backward_pass_that_waits_in_every_vjp_is_a_regression(row, tmp_path):
    """A sleep takes no time of the processor, but gives up the core each time."""
    still = replace(row, backward_waits=1)
    write_baseline(tmp_path / "b.jsonl", Baseline(cells_of(lines_of_rows([still]))))
    baseline = read_baseline(tmp_path / "b.jsonl")
    (finding,) = compare([replace(row, backward_waits=11)], baseline)
    assert (finding.kind, finding.metric, finding.measured) == (Kind.REGRESSION, WAITS, 11)
    assert compare([replace(row, backward_waits=6)], baseline) == []  # a page from disk, a thread that starts


def test_one_slow_round_is_noise(row, baseline):
    assert compare([slowed(row, 1.0, 9.0, 9.0, 9.0, 9.0)], baseline) == []
    assert compare([slowed(row, *[2.9] * 5)], baseline) == []


def test_a_run_without_times_is_not_compared(row, baseline):
    assert compare([replace(row, backward_cpu_samples_s=[0.5])], baseline) == []


def test_an_interval_too_wide_to_see_anything_is_not_kept(row):
    (cell,) = cells_of(lines_of_rows([slowed(row, 1.0, 0.3, 1.0, 1.0, 9.0)]))
    assert cell[BACKWARD] is None


def test_an_earlier_interval_stands_in_for_one_too_wide(row, baseline):
    noisy = cells_of(lines_of_rows([slowed(row, 1.0, 0.3, 1.0, 1.0, 9.0)]))
    assert with_earlier_times(noisy, baseline)[0][BACKWARD] == [1.0, 2.0]
    steady = cells_of(lines_of_rows([slowed(row, *[1.1] * 5)]))
    assert with_earlier_times(steady, baseline)[0][BACKWARD] == [1.1, 2.2]
