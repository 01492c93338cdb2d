"""All groups of a summary in one table."""

import math

import pytest

from symplectic_bench.analysis.overview import geometric_mean, overview
from symplectic_bench.analysis.summary import summarize
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
