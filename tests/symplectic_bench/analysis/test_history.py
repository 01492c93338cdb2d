"""How metrics moved over a suite's runs, and where the counters took a step."""

from dataclasses import asdict, replace

import pytest

from symplectic_bench.analysis.history import METRICS, Run, steps, trend
from symplectic_bench.analysis.regression import Kind
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import an_environment, group

METRIC = {metric.name: metric for metric in METRICS}


def a_run(rows, **changes):
    return Run(asdict(an_environment(**changes)) | {"id": "0" * 12, "scale": "cpu", "last_run": "2026-01-01"}, rows)


def changed(rows, place, **changes):
    return [replace(row, **changes) if i == place else row for i, row in enumerate(rows)]


def test_a_metric_is_a_multiple_of_the_first_run():
    rows = group()
    doubled = [replace(row, peak_tensor_bytes=2 * (row.peak_tensor_bytes or 0)) for row in rows]
    points = trend([a_run(rows), a_run(doubled), a_run(rows)], METRIC["peak of live tensors"])
    assert points == [(0, 1.0), (1, pytest.approx(2)), (2, pytest.approx(1))]


def test_one_of_nine_cells_moves_the_mean_by_its_ninth_root():
    rows = group()
    more = changed(rows, 0, peak_tensor_bytes=2 * (rows[0].peak_tensor_bytes or 0))
    (_, (place, value)) = trend([a_run(rows), a_run(more)], METRIC["peak of live tensors"])
    assert (place, value) == (1, pytest.approx(2 ** (1 / 9)))


def test_a_suite_may_gain_and_lose_cells():
    rows, others = group(), group(problem="van_der_pol", sizes=())
    runs = [a_run(rows), a_run(rows + others), a_run(others)]
    assert [place for place, _ in trend(runs, METRIC["f calls"])] == [0, 1, 2]
    assert trend([a_run(rows), a_run(others)], METRIC["f calls"]) == []


def test_a_cell_that_does_not_count_is_left_out():
    rows = group()
    wrong = changed(rows, 0, peak_tensor_bytes=10**12, forward_disagrees=True)
    assert trend([a_run(rows), a_run(wrong)], METRIC["peak of live tensors"])[1] == (1, pytest.approx(1))


def test_one_run_is_no_history():
    assert trend([a_run(group())], METRIC["f calls"]) == []
    assert steps([a_run(group())]) == []


def test_a_step_is_found_in_the_run_and_the_cell_that_took_it():
    rows = group()
    calls = (rows[3].f_calls_backward or 0) + 7
    runs = [a_run(rows), a_run(rows), a_run(changed(rows, 3, f_calls_backward=calls))]
    (step,) = steps(runs)
    assert (step.place, step.finding.metric, step.finding.measured) == (2, "f_calls_backward", calls)
    assert step.finding.cell.endswith(rows[3].cell.name)
    assert step.finding.kind is Kind.REGRESSION


def test_a_gain_is_a_step_too_and_times_and_rounding_are_none():
    rows = group()
    less = changed(rows, 0, peak_tensor_bytes=(rows[0].peak_tensor_bytes or 0) // 2)
    assert [step.finding.metric for step in steps([a_run(rows), a_run(less)])] == ["peak_tensor_bytes"]
    slower = [replace(row, total_s=9 * (row.total_s or 0), error_discrete=3.1e-16) for row in rows]
    assert steps([a_run(rows), a_run(slower)]) == []


def test_a_cell_that_fails_is_a_step_and_one_that_is_gone_is_none():
    rows = group()
    failed = changed(rows, 1, status=Status.TIMEOUT, reason="no result within 60 s")
    assert [step.finding.metric for step in steps([a_run(rows), a_run(failed)])] == ["status"]
    assert steps([a_run(rows), a_run(rows[1:])]) == []


def test_a_step_more_on_another_kind_of_processor_is_none():
    rows = group()
    more = [replace(row, steps_accepted=(row.steps_accepted or 0) + 1) for row in rows]
    here, elsewhere = a_run(rows), a_run(more, cpu_kind="Other AVX512")
    assert steps([here, elsewhere]) == []
    assert len(steps([here, a_run(more)])) == len(rows)
