import json
from dataclasses import replace

import pytest

from symplectic_bench.analysis.baseline import (
    BACKWARD,
    METRICS,
    TIME,
    WAITS,
    Baseline,
    BaselineMissing,
    UnfitForBaseline,
    cells_of,
    lines_of_rows,
    mentioned_in,
    read_baseline,
    require_all_measured,
    write_baseline,
)
from symplectic_bench.analysis.regression import Kind, compare, count_new_cells, of_kind, told_apart
from symplectic_bench.report.findings import to_markdown
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import group


def a_baseline(rows):
    return Baseline(cells_of(lines_of_rows(rows)))


def baseline_of(path, rows):
    """Written and read."""
    write_baseline(path, a_baseline(rows))
    return read_baseline(path)


def red(rows, baseline):
    return of_kind(compare(rows, baseline), Kind.REGRESSION)


@pytest.fixture
def rows():
    return group()


@pytest.fixture
def baseline(rows, tmp_path):
    return baseline_of(tmp_path / "small.jsonl", rows)


def changed(rows, name, **changes):
    return [replace(row, **changes) if row.cell.name == name else row for row in rows]


def test_equal_rows_pass(rows, baseline):
    assert compare(rows, baseline) == []


def test_a_baseline_holds_deterministic_values_and_ratios_of_times(baseline):
    assert set(baseline.cells[0]) == {"cell_id", "cell", "dtype", "status", "adaptive", *METRICS, TIME, BACKWARD, WAITS}
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
    (finding,) = red(changed(rows, "ours symplectic", **{metric: now}), baseline)
    sentence = str(finding)
    assert "mlp(layers=2, state=32, width=64)" in sentence
    shown = [f"{x:.3g}" if isinstance(x, float) else str(x) for x in (before, now)]
    assert f"ours symplectic: {metric} was {shown[0]}, is {shown[1]} (allowed: " in sentence


@pytest.mark.parametrize(
    "harmless",
    [
        {"peak_tensor_bytes": 1.009},
        {"error_true": 1.4},
        {"error_discrete": 3000},  # from 3e-16 to 9e-13, still rounding
    ],
)
def test_a_change_within_tolerance_passes(rows, baseline, harmless):
    ((metric, factor),) = harmless.items()
    value = getattr(symplectic(rows), metric) * factor
    assert red(changed(rows, "ours symplectic", **{metric: value}), baseline) == []


def test_the_references_own_error_is_allowed(rows, baseline):
    row = symplectic(rows)
    worse = {"error_true": 1.5 * row.error_true + 9e-7, "error_true_bar": 1e-6}
    assert red(changed(rows, "ours symplectic", **worse), baseline) == []


def test_an_error_above_rounding_may_grow_tenfold(rows, baseline):
    before = next(row for row in rows if row.cell.name == "ours continuous").error_discrete
    assert red(changed(rows, "ours continuous", error_discrete=9 * before), baseline) == []
    assert len(red(changed(rows, "ours continuous", error_discrete=11 * before), baseline)) == 1


def test_the_floor_of_errors_is_higher_in_float32(tmp_path):
    rows = group(dtype="float32")
    baseline = baseline_of(tmp_path / "b.jsonl", rows)
    assert red(changed(rows, "ours aca", error_discrete=9e-5), baseline) == []
    assert len(red(changed(rows, "ours aca", error_discrete=2e-4), baseline)) == 1


def test_a_cell_without_a_row_is_a_regression(rows, baseline):
    (finding,) = compare(rows[1:], baseline)
    assert rows[0].cell.name in finding.cell
    assert finding.measured == "no row"


def test_a_cell_that_fails_now_is_a_regression_with_its_reason(rows, baseline):
    (finding,) = compare(changed(rows, "ours aca", status=Status.OOM, reason="killed"), baseline)
    assert "status was ok, is oom (killed)" in str(finding)


def test_a_cell_that_was_skipped_may_be_measured_now(rows, tmp_path):
    skipped = changed(rows, "ours aca", status=Status.SKIPPED, error_true=None)
    assert red(rows, baseline_of(tmp_path / "b.jsonl", skipped)) == []


def test_cells_that_the_baseline_does_not_have_are_counted(rows, baseline):
    assert count_new_cells(lines_of_rows(rows), baseline) == 0
    assert count_new_cells(lines_of_rows(rows + group(seed=1)), baseline) == 9


@pytest.mark.parametrize("status", [Status.ERROR, Status.TIMEOUT, Status.OOM, Status.DIVERGED])
def test_a_cell_that_was_not_measured_cannot_be_in_a_baseline(rows, status):
    with pytest.raises(UnfitForBaseline, match=f"ours aca: {status}: boom"):
        failed = changed(rows, "ours aca", status=status, reason="boom")
        require_all_measured(failed, total=len(rows))


def test_a_part_of_a_suite_cannot_be_a_baseline(rows):
    with pytest.raises(UnfitForBaseline, match="2 of the suite's 9 cells have rows: run all of it first"):
        require_all_measured(rows[:2], total=9)


def test_a_number_that_json_lacks_can_be_in_a_baseline(rows, tmp_path):
    infinite = changed(rows, "ours aca", error_true=float("inf"))
    assert red(rows, baseline_of(tmp_path / "b.jsonl", infinite)) == []


def test_a_missing_baseline_says_how_to_make_one(tmp_path):
    with pytest.raises(BaselineMissing, match=r"no baseline .*small.jsonl: record one with check --update"):
        read_baseline(tmp_path / "small.jsonl")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "not JSON", '{"tolerances": {"f_calls_forward": {"wihtin": 1}}, "time": {}}\n']
)
def test_a_file_that_is_not_a_baseline_is_refused(tmp_path, text):
    (tmp_path / "b.jsonl").write_text(text)
    with pytest.raises(UnfitForBaseline, match="not a baseline"):
        read_baseline(tmp_path / "b.jsonl")


class TestTolerancesInTheFile:
    def edited(self, path, old, new):
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        return read_baseline(path)

    def test_the_tolerances_in_the_file_decide(self, rows, baseline, tmp_path):
        worse = changed(rows, "ours symplectic", peak_tensor_bytes=round(1.05 * symplectic(rows).peak_tensor_bytes))
        assert red(worse, baseline)
        wider = self.edited(
            tmp_path / "small.jsonl", '"peak_tensor_bytes": {"within": 0.01}', '"peak_tensor_bytes": {"within": 0.1}'
        )
        assert not red(worse, wider)

    def test_tolerances_that_the_file_does_not_name_are_the_defaults(self, baseline, tmp_path):
        partial = self.edited(
            tmp_path / "small.jsonl", '"error_true": {"factor": 1.5}', '"steps_rejected": {"within": 1}'
        )
        assert partial.tolerances["error_true"].factor == 1.5 and partial.tolerances["steps_rejected"].within == 1


class TestTime:
    def slower(self, rows, factor):
        row = symplectic(rows)
        return changed(rows, "ours symplectic", total_s=factor * row.total_s)

    def test_it_is_compared_as_a_multiple_of_the_reference_contenders(self, rows, baseline):
        everything = [replace(row, total_s=3 * row.total_s) for row in rows]
        assert compare(everything, baseline) == []

    def test_it_is_reported_beyond_both_limits(self, rows, baseline):
        (finding,) = compare(self.slower(rows, 3), baseline)
        assert (finding.kind, finding.metric) == (Kind.SLOWER, TIME)
        assert compare(self.slower(rows, 1.4), baseline) == []

    def test_a_large_multiple_of_a_very_short_time_is_not_reported(self, rows):
        """1.6 times as long, which is a millisecond more."""
        short = [replace(row, total_s=row.total_s * 0.1) for row in rows]
        baseline = a_baseline(short)
        assert compare(self.slower(short, 1.6), baseline) == []


class TestSummary:
    def test_it_says_what_changed_by_how_much_and_where(self, rows, baseline):
        row = symplectic(rows)
        worse = changed(
            rows, "ours symplectic", f_calls_forward=row.f_calls_forward + 5, error_true=1.3 * row.error_true
        )
        text = to_markdown("small", compare(worse, baseline), len(rows), 2, time_decides=False)
        assert "small: 1 regression\n" in text and "2 new cells: `check --update` adds" in text
        assert "#### Regressions" in text and "#### Changed within the tolerance" in text
        assert "f\\_calls\\_forward" in text and "+30 %" in text and "ours symplectic" in text

    def test_it_says_that_nothing_changed(self, rows, baseline):
        assert "no regression" in to_markdown("small", compare(rows, baseline), len(rows), 0, time_decides=False)


def test_a_change_of_the_baseline_requires_a_line_in_the_changelog(rows, baseline, tmp_path):
    changelog = tmp_path / "CHANGELOG.md"
    assert not mentioned_in(changelog, "small", baseline)
    changelog.write_text(f"- Baseline small {baseline.digest}: one f call less.\n")
    assert mentioned_in(changelog, "small", baseline)
    other = a_baseline(changed(rows, "ours aca", f_calls_forward=1))
    assert not mentioned_in(changelog, "small", other)


HEAD = '{"tolerances": {}, "time": {}}\n'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"within": 0.01', '"within": "1%"'),
        ('"floor": {"float64": 1e-12, "float32": 0.0001}', '"floor": 1e-12'),
        ('"relative": 0.5', '"relative": "50%"'),
        ('"factor": 1.5', '"factor": NaN'),
        ('"status": "ok"', '"status": "Ok"'),
        ('"f_calls_forward": 140', '"f_calls_forward": "140"'),
        ('"f_calls_forward": 140', '"f_calls_forward": 1' + "0" * 400),
    ],
)
def test_a_baseline_that_would_not_be_compared_as_it_reads_is_refused(rows, baseline, tmp_path, old, new):
    file = tmp_path / "small.jsonl"
    text = file.read_text()
    number = json.loads(text.splitlines()[1])["f_calls_forward"]
    file.write_text(text.replace(old.replace("140", str(number)), new.replace("140", str(number)), 1))
    with pytest.raises(UnfitForBaseline, match="not a baseline"):
        read_baseline(file)


def test_a_baseline_without_cells_is_refused(tmp_path):
    (tmp_path / "b.jsonl").write_text(HEAD)
    with pytest.raises(UnfitForBaseline, match="no cells"):
        read_baseline(tmp_path / "b.jsonl")


def test_a_time_that_is_missing_now_is_reported(rows, baseline):
    found = compare(changed(rows, "ours symplectic", total_s=None), baseline)
    assert [(finding.kind, finding.metric) for finding in found] == [(Kind.SLOWER, TIME)]


@pytest.mark.parametrize(
    ("before", "now", "shown"),
    [
        (1.2345678e-5, 2.5e-5, ("1.23e-05", "2.5e-05")),
        (1.23456789, 1.23456788, ("1.23456789", "1.23456788")),
        (1.0, 1.0, ("1", "1")),
        (192, 193, ("192", "193")),
        (123456789, 123456788, ("123456789", "123456788")),
        (0.5, None, ("0.5", "None")),
        ("ok", "oom (killed)", ("ok", "oom (killed)")),
    ],
)
def test_values_have_the_digits_that_tell_them_apart(before, now, shown):
    assert told_apart(before, now) == shown


@pytest.mark.parametrize("metric", ["error_discrete", "error_true"])
def test_a_move_of_rounding_is_no_finding(rows, metric):
    before = a_baseline(changed(rows, "ours symplectic", **{metric: 1e-16}))
    assert compare(changed(rows, "ours symplectic", **{metric: 1.4e-16}), before) == []
