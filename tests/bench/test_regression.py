from dataclasses import replace

import pytest

from benchmarks.record import Status
from benchmarks.regression import (
    METRICS,
    BaselineMissing,
    UnfitForBaseline,
    compare,
    read_baseline,
    unrecorded,
    write_baseline,
)
from tests.bench.rows import group


@pytest.fixture
def rows():
    return group()


@pytest.fixture
def baseline(rows, tmp_path):
    write_baseline(tmp_path / "small.jsonl", rows, whole=len(rows))
    return read_baseline(tmp_path / "small.jsonl")


def changed(rows, name, **changes):
    return [replace(row, **changes) if row.cell.name == name else row for row in rows]


def test_equal_rows_are_green(rows, baseline):
    assert compare(rows, baseline) == []


def test_a_baseline_holds_what_is_deterministic_only(baseline):
    assert set(baseline[0]) == {"cell_id", "cell", "dtype", "status", *METRICS}
    assert not [name for name in METRICS if name.endswith("_s") or "rss" in name]


def test_time_and_resident_memory_do_not_matter(rows, baseline):
    assert compare([replace(row, total_s=99.0, forward_s=99.0, peak_rss_bytes=2**40) for row in rows], baseline) == []


def symplectic(rows):
    return next(row for row in rows if row.cell.name == "ours symplectic")


@pytest.mark.parametrize(
    ("metric", "planted"),
    [
        ("f_calls_forward", lambda row: row.f_calls_forward + 1),
        ("f_calls_forward", lambda row: row.f_calls_forward - 1),
        ("f_calls_backward", lambda row: row.f_calls_backward + 1),
        ("vjps_forward", lambda row: 1),
        ("vjps_backward", lambda row: row.vjps_backward + 1),
        ("steps_accepted", lambda row: row.steps_accepted + 1),
        ("steps_rejected", lambda row: row.steps_rejected + 1),
        ("peak_tensor_bytes", lambda row: round(row.peak_tensor_bytes * 1.05)),
        ("peak_tensor_bytes", lambda row: round(row.peak_tensor_bytes * 0.95)),
        ("error_discrete", lambda row: 1e-6),
        ("error_discrete", lambda row: float("nan")),
        ("error_true", lambda row: 2 * row.error_true),
        ("error_true", lambda row: None),
    ],
)
def test_a_planted_change_is_named_with_cell_metric_and_both_values(rows, baseline, metric, planted):
    before, now = getattr(symplectic(rows), metric), planted(symplectic(rows))
    (finding,) = compare(changed(rows, "ours symplectic", **{metric: now}), baseline)
    sentence = str(finding)
    assert "mlp(layers=2, state=32, width=64)" in sentence
    assert f"ours symplectic: {metric} was {before}, is {now} (allowed: " in sentence


@pytest.mark.parametrize(
    "harmless",
    [
        {"peak_tensor_bytes": 1.009},
        {"error_true": 1.4},
        {"error_discrete": 3000},  # from 3e-16 to 9e-13, still rounding
    ],
)
def test_a_change_within_tolerance_is_green(rows, baseline, harmless):
    ((metric, factor),) = harmless.items()
    value = getattr(symplectic(rows), metric) * factor
    assert compare(changed(rows, "ours symplectic", **{metric: value}), baseline) == []


def test_the_references_own_error_is_allowed(rows, baseline):
    row = symplectic(rows)
    worse = {"error_true": 1.5 * row.error_true + 9e-7, "error_true_bar": 1e-6}
    assert compare(changed(rows, "ours symplectic", **worse), baseline) == []


def test_an_error_that_was_never_rounding_may_grow_tenfold(rows, baseline):
    before = next(row for row in rows if row.cell.name == "ours continuous").error_discrete
    assert compare(changed(rows, "ours continuous", error_discrete=9 * before), baseline) == []
    assert len(compare(changed(rows, "ours continuous", error_discrete=11 * before), baseline)) == 1


def test_rounding_in_float32_is_coarser(tmp_path):
    rows = group(dtype="float32")
    write_baseline(tmp_path / "b.jsonl", rows, whole=len(rows))
    baseline = read_baseline(tmp_path / "b.jsonl")
    assert compare(changed(rows, "ours aca", error_discrete=9e-5), baseline) == []
    assert len(compare(changed(rows, "ours aca", error_discrete=2e-4), baseline)) == 1


def test_a_cell_without_a_row_is_a_regression(rows, baseline):
    (finding,) = compare(rows[1:], baseline)
    assert rows[0].cell.name in finding.cell
    assert finding.measured == "no row"


def test_a_cell_that_fails_now_is_a_regression_with_its_reason(rows, baseline):
    (finding,) = compare(changed(rows, "ours aca", status=Status.OOM, reason="killed"), baseline)
    assert "status was ok, is oom (killed)" in str(finding)


def test_a_cell_that_was_skipped_may_be_measured_now(rows, tmp_path):
    skipped = changed(rows, "ours aca", status=Status.SKIPPED, error_true=None)
    write_baseline(tmp_path / "b.jsonl", skipped, whole=len(rows))
    assert compare(rows, read_baseline(tmp_path / "b.jsonl")) == []


def test_rows_that_the_baseline_does_not_know_are_counted(rows, baseline):
    assert unrecorded(rows, baseline) == 0
    assert unrecorded(rows + group(seed=1), baseline) == 9


@pytest.mark.parametrize("status", [Status.ERROR, Status.TIMEOUT, Status.OOM, Status.DIVERGED])
def test_a_cell_that_was_not_measured_is_no_baseline(rows, tmp_path, status):
    with pytest.raises(UnfitForBaseline, match=f"ours aca: {status}: boom"):
        failed = changed(rows, "ours aca", status=status, reason="boom")
        write_baseline(tmp_path / "b.jsonl", failed, whole=len(rows))
    assert not (tmp_path / "b.jsonl").exists()


def test_a_part_of_a_suite_is_no_baseline(rows, tmp_path):
    with pytest.raises(UnfitForBaseline, match="2 of the suite's 9 cells have rows: run all of it first"):
        write_baseline(tmp_path / "b.jsonl", rows[:2], whole=9)


def test_a_number_that_json_lacks_can_be_in_a_baseline(rows, tmp_path):
    write_baseline(tmp_path / "b.jsonl", changed(rows, "ours aca", error_true=float("inf")), whole=len(rows))
    assert compare(rows, read_baseline(tmp_path / "b.jsonl")) == []


def test_a_missing_baseline_says_how_to_make_one(tmp_path):
    with pytest.raises(BaselineMissing, match=r"no baseline small.jsonl in .*check --update"):
        read_baseline(tmp_path / "small.jsonl")
