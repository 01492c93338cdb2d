"""Where a limit of the gate lies: what is just allowed, and what is just too much."""

from dataclasses import replace

import pytest

from symplectic_bench.analysis.baseline import TIME, Baseline, TimeTolerance, Tolerance, cells_of, lines_of_rows
from symplectic_bench.analysis.regression import Kind, compare, compare_lines, of_kind
from tests.symplectic_bench.sample_rows import a_cell, a_row, group

FLOORED = Tolerance(factor=2.0, floor={"float64": 5.0})


@pytest.mark.parametrize(
    ("tolerance", "before", "now", "allowed"),
    [
        (Tolerance(within=0.25), 8.0, 10.0, True),
        (Tolerance(within=0.25), 8.0, 10.1, False),
        (Tolerance(within=0.25), 8.0, 6.0, True),
        (Tolerance(within=0.25), 8.0, 5.9, False),
        (Tolerance(within=0.0), 8.0, 8.0, True),
        (Tolerance(within=0.25), -8.0, -10.0, True),
        (Tolerance(factor=2.0), 8.0, 16.0, True),
        (Tolerance(factor=2.0), 8.0, 16.1, False),
        (Tolerance(factor=2.0), 8.0, 0.0, True),
        (Tolerance(), 8.0, 8.0, True),
        (Tolerance(), 8.0, 8.1, False),
        (FLOORED, 1.0, 5.0, True),
        (FLOORED, 1.0, 5.1, False),
        (FLOORED, 8.0, 16.0, True),
    ],
)
def test_a_tolerance_allows_its_limit_and_no_more(tolerance, before, now, allowed):
    assert tolerance.allows(before, now, "float64") is allowed


def test_the_uncertainty_of_a_value_is_added_to_the_limit_of_its_factor():
    assert Tolerance(factor=2.0).allows(8.0, 17.0, "float64", slack=1.0)
    assert not Tolerance(factor=2.0).allows(8.0, 17.1, "float64", slack=1.0)


def test_a_floor_is_that_of_the_dtype_alone():
    assert not FLOORED.allows(1.0, 5.0, "float32")


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [
        (Tolerance(within=0.25), "within 25%"),
        (Tolerance(within=0.0), "no change"),
        (Tolerance(factor=2.0), "at most 16"),
        (Tolerance(), "at most 8"),
        (Tolerance(factor=2.0, floor={"float64": 50.0}), "at most 50"),
        (Tolerance(factor=2.0, floor={"float32": 50.0}), "at most 16"),
    ],
)
def test_a_tolerance_is_worded_with_its_limit(tolerance, words):
    assert tolerance.wording(8.0, "float64") == words


@pytest.mark.parametrize(
    ("dtype", "metric", "was", "allowed", "refused"),
    [
        ("float64", "error_discrete", 1e-6, 9.9e-6, 1.01e-5),
        ("float64", "error_discrete", 1e-16, 1e-12, 1.1e-12),
        ("float32", "error_discrete", 1e-16, 1e-4, 1.1e-4),
        ("float64", "error_true", 1e-3, 1.49e-3, 1.51e-3),
        ("float64", "peak_tensor_bytes", 100_000, 101_000, 101_001),
        ("float64", "peak_tensor_bytes", 100_000, 99_000, 98_999),
        ("float64", "steps_rejected", 0, 0, 1),
    ],
)
def test_the_limits_without_a_file_are_those_that_the_docs_give(dtype, metric, was, allowed, refused):
    row = a_row(a_cell(dtype=dtype), error_true_bar=None, **{metric: was})
    baseline = Baseline(cells_of(lines_of_rows([row])))
    for now, kinds in ((allowed, 0), (refused, 1)):
        assert len(of_kind(compare([replace(row, **{metric: now})], baseline), Kind.REGRESSION)) == kinds


@pytest.mark.parametrize(("now", "reported"), [(1.09, 0), (0.91, 0), (1.125, 1), (0.875, 1)])
def test_an_error_that_moved_by_a_tenth_is_reported_though_allowed(now, reported):
    row = a_row(error_true=1.0)
    found = compare([replace(row, error_true=now)], Baseline(cells_of(lines_of_rows([row]))))
    assert [finding.kind for finding in found] == [Kind.MOVED] * reported


WAS = {**cells_of(lines_of_rows(group()))[4], TIME: 2.0}


class TestTime:
    """A cell takes twice the reference's time; limits are half as long again, and 0.25 s."""

    def slower(self, multiple, total_s, absolute_s=0.25):
        now = {**WAS, TIME: multiple, "total_s": total_s}
        return compare_lines([now], Baseline([WAS], time=TimeTolerance(0.5, absolute_s)))

    def test_it_may_be_longer_by_the_fraction(self):
        assert self.slower(3.0, 3.0) == []
        (finding,) = self.slower(3.1, 3.1)
        assert (finding.kind, finding.baseline, finding.measured) == (Kind.SLOWER, 2.0, 3.1)
        assert finding.allowed == "50% or 0.25 s more"

    def test_it_may_be_longer_by_the_seconds(self):
        # Of 0.5 s at twice the multiple, half is what the baseline's multiple does not explain.
        assert self.slower(4.0, 0.5) == []
        assert len(self.slower(4.0, 0.52)) == 1

    def test_a_baseline_without_a_time_allows_any(self):
        was = {**WAS, TIME: None}
        assert compare_lines([{**WAS, TIME: 9.0, "total_s": 9.0}], Baseline([was])) == []

    def test_a_time_without_seconds_is_missing(self):
        (finding,) = self.slower(2.0, None)
        assert (finding.kind, finding.measured) == (Kind.SLOWER, None)


def test_a_cell_that_was_not_measured_cannot_get_worse():
    was = {**WAS, "status": "skipped", "f_calls_forward": 1}
    assert compare_lines([{**WAS, "status": "oom", "reason": None}], Baseline([was])) == []


def test_a_failure_without_a_reason_is_its_status():
    (finding,) = compare_lines([{**WAS, "status": "oom", "reason": None}], Baseline([WAS]))
    assert (finding.metric, finding.baseline, finding.measured, finding.allowed) == ("status", "ok", "oom", "ok")


def test_a_digest_has_eight_hex_digits_and_changes_with_a_tolerance():
    baseline = Baseline([WAS])
    assert len(baseline.digest) == 8 and int(baseline.digest, 16) >= 0
    assert replace(baseline, time=TimeTolerance(relative=0.6)).digest != baseline.digest


def test_a_baselines_time_is_relative_to_the_reference_in_three_digits():
    rows = [a_row(total_s=2.0), a_row(a_cell(contender="torchdiffeq", gradient="backprop"), total_s=3.0)]
    assert [cell[TIME] for cell in cells_of(lines_of_rows(rows))] == [0.667, 1.0]


@pytest.mark.parametrize("place", [0, 1])
def test_a_time_needs_two_cells_that_agree_with_the_reference(place):
    rows = [a_row(), a_row(a_cell(contender="torchdiffeq", gradient="backprop"))]
    rows[place] = replace(rows[place], forward_disagrees=True)
    assert lines_of_rows(rows)[0][TIME] is None
