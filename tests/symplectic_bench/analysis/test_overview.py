"""All groups of a summary in one table."""

import math

import pytest

from symplectic_bench.analysis.overview import geometric_mean, overview
from symplectic_bench.analysis.summary import summarize
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row, group


def test_the_overview_has_the_worst_error_of_each_precision_and_mean_ratios():
    alone = a_row(a_cell(gradient="aca", dtype="float32"), error_discrete=2e-6, floor_s=1.0, total_s=8.4)
    rows = [*group(), alone]
    line = {line["name"]: line for line in overview(summarize(rows))}["ours aca"]
    assert (line["cells"], line["ok"], line["compared"]) == (2, 2, 1)
    assert (line["worst_error_discrete_float64"], line["worst_error_discrete_float32"]) == (3e-16, 2e-6)
    assert line["mean_time_over_floor"] == pytest.approx(math.sqrt(2.1 * 8.4))


def test_a_geometric_mean_ignores_unknown_values():
    assert geometric_mean([1.0, None, 4.0]) == pytest.approx(2)
    assert geometric_mean([None]) is None


def test_cells_that_failed_or_disagree_are_counted_and_have_no_part_in_errors_and_means():
    rows = [
        a_row(error_discrete=1e-15),
        a_row(a_cell(seed=1), error_discrete=1.0, forward_disagrees=True),
        a_row(a_cell(seed=2), status=Status.OOM, error_discrete=None, total_s=None),
        a_row(a_cell(seed=3), error_discrete=None),
    ]
    (line,) = overview(summarize(rows))
    assert (line["cells"], line["ok"], line["compared"]) == (4, 3, 0)
    assert (line["worst_error_discrete_float64"], line["worst_error_discrete_float32"]) == (1e-15, None)
    assert line["mean_time_over_floor"] == pytest.approx(2.7)
    assert line["mean_time_over_peer"] is None


def test_lines_are_in_display_order():
    rows = [a_row(a_cell(contender=contender)) for contender in ("torchdiffeq", "ours")]
    assert [line["name"] for line in overview(summarize(rows))] == ["ours symplectic", "torchdiffeq symplectic"]
    assert overview(summarize([])) == []
