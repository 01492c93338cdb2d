"""A baseline compared with rows of another kind of processor, where an adaptive solve may take another step."""

import json
from dataclasses import replace

import pytest

from symplectic_bench.analysis.baseline import (
    Baseline,
    UnfitForBaseline,
    cells_of,
    lines_of_rows,
    read_baseline,
    write_baseline,
)
from symplectic_bench.analysis.regression import Kind, compare_lines, remark_on_kinds
from symplectic_bench.report.findings import to_markdown
from tests.symplectic_bench.sample_rows import a_cell, a_row, group

HERE, THERE = "a" * 12, "b" * 12
KINDS = {HERE: "Some AVX2", THERE: "Other AVX512"}


def lines(rows, where):
    return lines_of_rows([replace(row, environment=where) for row in rows], KINDS)


def rows_of(gradient="symplectic", **changes):
    return [a_row(a_cell(gradient=gradient), steps_accepted=20, steps_rejected=2, peak_tensor_bytes=10**6, **changes)]


def a_baseline(rows, path):
    write_baseline(path / "b.jsonl", Baseline(cells_of(lines(rows, HERE)), kinds=[KINDS[HERE]]))
    return read_baseline(path / "b.jsonl")


def kinds_of(findings):
    return {finding.metric: finding.kind for finding in findings}


def test_counts_must_be_equal_on_a_kind_that_was_checked(tmp_path):
    baseline = a_baseline(rows_of(), tmp_path)
    for change in ({"steps_accepted": 21}, {"steps_rejected": 3}, {"f_calls_forward": 1}, {"vjps_backward": 1}):
        found = compare_lines(lines([replace(rows_of()[0], **change)], HERE), baseline)
        assert set(kinds_of(found).values()) == {Kind.REGRESSION}
    assert remark_on_kinds(lines(rows_of(), HERE), baseline) == ""


def test_an_adaptive_solve_may_take_one_step_more_on_another_kind_and_cost_as_much(tmp_path):
    row = rows_of(f_calls_forward=120, f_calls_backward=200, vjps_backward=120)[0]
    baseline = a_baseline([row], tmp_path)
    one_more = replace(
        row, steps_accepted=21, f_calls_forward=126, f_calls_backward=210, vjps_backward=126, peak_tensor_bytes=1050000
    )
    found = compare_lines(lines([one_more], THERE), baseline)
    counted = ("steps_accepted", "f_calls_forward", "f_calls_backward", "vjps_backward", "peak_tensor_bytes")
    assert kinds_of(found) == dict.fromkeys(counted, Kind.ELSEWHERE)
    assert "allowed: within 5% on another kind of processor" in str(found[0])


@pytest.mark.parametrize(
    "change",
    [
        {"steps_accepted": 22},
        {"steps_accepted": 21, "f_calls_forward": 500},
        {"steps_accepted": 21, "peak_tensor_bytes": 1_100_000},
        {"steps_rejected": 4},
    ],
)
def test_more_than_that_is_a_regression_everywhere(tmp_path, change):
    baseline = a_baseline(rows_of(), tmp_path)
    found = compare_lines(lines([replace(rows_of()[0], **change)], THERE), baseline)
    assert Kind.REGRESSION in kinds_of(found).values()


@pytest.mark.parametrize("change", [{"f_calls_backward": 200}, {"vjps_backward": 1}, {"peak_tensor_bytes": 1_020_000}])
def test_a_solve_with_the_same_steps_must_cost_the_same_on_every_kind(tmp_path, change):
    baseline = a_baseline(rows_of(), tmp_path)
    found = compare_lines(lines([replace(rows_of()[0], **change)], THERE), baseline)
    assert kinds_of(found) == {next(iter(change)): Kind.REGRESSION}


def test_a_second_solve_may_take_another_step_although_the_first_does_not(tmp_path):
    row = rows_of("continuous", f_calls_backward=120, vjps_backward=120)[0]
    found = compare_lines(
        lines([replace(row, f_calls_backward=126, vjps_backward=126)], THERE), a_baseline([row], tmp_path)
    )
    assert kinds_of(found) == dict.fromkeys(("f_calls_backward", "vjps_backward"), Kind.ELSEWHERE)


def test_fixed_steps_must_be_equal_on_every_kind(tmp_path):
    row = a_row(a_cell(rtol=None, atol=None, steps=20, method="rk4"), steps_accepted=20, f_calls_backward=140)
    baseline = a_baseline([row], tmp_path)
    found = compare_lines(lines([replace(row, f_calls_backward=141)], THERE), baseline)
    assert kinds_of(found) == {"f_calls_backward": Kind.REGRESSION}
    assert remark_on_kinds(lines([row], THERE), baseline) == ""


def test_errors_and_failures_count_on_every_kind(tmp_path):
    row = rows_of()[0]
    found = compare_lines(
        lines([replace(row, steps_accepted=21, error_discrete=1e-6)], THERE), a_baseline([row], tmp_path)
    )
    assert kinds_of(found)["error_discrete"] is Kind.REGRESSION


def test_what_is_not_compared_in_full_is_said(tmp_path):
    rows = group()
    baseline = a_baseline(rows, tmp_path)
    remark = remark_on_kinds(lines(rows, THERE), baseline)
    assert remark.startswith(
        "the baseline was checked on Some AVX2, not on Other AVX512: the steps of 9 adaptive cells"
    )
    text = to_markdown("small", compare_lines(lines(rows, THERE), baseline), len(rows), 0, False, remark)
    assert "The baseline was checked on Some AVX2" in text


def test_a_file_that_names_no_kind_is_compared_in_full(tmp_path):
    write_baseline(tmp_path / "b.jsonl", Baseline(cells_of(lines(rows_of(), HERE))))
    baseline = read_baseline(tmp_path / "b.jsonl")
    found = compare_lines(lines([replace(rows_of()[0], steps_accepted=21)], THERE), baseline)
    assert kinds_of(found) == {"steps_accepted": Kind.REGRESSION}


@pytest.mark.parametrize("steps", range(1, 100))
def test_a_step_more_is_allowed_whatever_their_number(tmp_path, steps):
    """1 / N times N is not always 1."""
    row = replace(rows_of()[0], steps_accepted=steps)
    found = compare_lines(lines([replace(row, steps_accepted=steps + 1)], THERE), a_baseline([row], tmp_path))
    assert kinds_of(found) == {"steps_accepted": Kind.ELSEWHERE}


def test_an_empty_solve_is_no_division_by_zero(tmp_path):
    row = rows_of()[0]
    none = replace(row, steps_accepted=0, steps_rejected=0)
    assert compare_lines(lines([replace(none, steps_rejected=1)], THERE), a_baseline([none], tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [("kinds", "AVX2"), ("kinds", [2]), ("elsewhere", {"steps": -1}), ("elsewhere", 3), ("backward_factor", "2")],
)
def test_a_head_that_means_something_else_is_refused(tmp_path, name, value):
    a_baseline(rows_of(), tmp_path)
    file = tmp_path / "b.jsonl"
    head, *cells = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(head) | {name: value}), *cells]))
    with pytest.raises(UnfitForBaseline, match="not a baseline"):
        read_baseline(file)
