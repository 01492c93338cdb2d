"""The second figure of true errors: solves at one or two tolerances, in rows."""

from dataclasses import replace
from itertools import pairwise

import pytest

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.html.chart_data import panel_data
from symplectic_bench.report.error_figures import true_errors
from symplectic_bench.report.render import draw
from tests.symplectic_bench.sample_rows import UNMEASURED, errors_alone, group

WHERE = "Measured here."
PAIR = (("ours", "symplectic"), ("ours", "aca"), ("ours", "continuous"))


def at(rtol, errors, bar=1e-30, pairs=PAIR, **axes):
    """Return rows of one solve with these errors of symplectic (and aca) and of continuous."""
    own, its = errors
    known = {"error_true_reference": "Taylor series", "error_true_bar": bar, **UNMEASURED}
    rows = group(pairs, rtol=rtol, atol=rtol, **axes)
    return [replace(row, error_true=its if row.gradient == "continuous" else own, **known) for row in rows]


def figures(*solves):
    return true_errors(summarize([*errors_alone(), *(row for solve in solves for row in solve)]), WHERE)


THREE = (
    at(1e-4, (1e-3, 1e-2), problem="kepler", sizes=()),
    at(1e-8, (1e-7, 1e-8), problem="kepler", sizes=()),
    at(1e-4, (1e-3, 1e-4), problem="spiral", sizes=(), batch=7),
)


def test_solves_at_few_tolerances_are_rows_of_one_figure_with_a_panel_for_each_tolerance():
    ladders, dots = figures(*THREE)
    assert (ladders.name, dots.name) == ("true-errors", "true-errors-others")
    (block,) = dots.blocks  # so that its panels stay side by side
    coarse, fine = block
    assert [coarse.title, fine.title] == ["rtol 0.0001", "rtol 1e-08"]
    assert coarse.y == fine.y, "the same rows in both"
    assert [name.split(",")[0] for name in reversed(coarse.y.names)] == ["kepler", "spiral"], "in the suite's order"


def test_a_row_says_what_tells_it_from_the_others_and_the_panel_what_all_share():
    panel = figures(*THREE)[1].panels[0]
    assert list(reversed(panel.y.names)) == ["kepler, batch 128", "spiral, batch 7"]
    assert panel.setting == "float64, dopri5"


def test_exact_gradients_share_a_dot_at_their_row():
    panel = figures(*THREE)[1].panels[0]
    series = {one.name: one for one in panel.series}
    assert set(series) == {"ours symplectic", "ours continuous"}
    assert dict(zip(series["ours continuous"].y, series["ours continuous"].x, strict=True)) == {1.0: 1e-2, 0.0: 1e-4}
    assert not any(one.joined for one in panel.series)


def test_the_titles_count_the_solves_that_can_be_decided():
    coarse, fine = figures(*THREE)[1].panels
    assert str(coarse.headline) == "exact gradients closer than continuous in 1 of 2 solves"
    assert str(fine.headline) == "exact gradients closer than continuous in 0 of 1 solves"
    vague = at(1e-4, (1e-3, 1.1e-3), bar=1e-3, problem="lorenz", sizes=())
    alone = at(1e-4, (1e-3, 0.0), pairs=PAIR[:2], problem="forced", sizes=())
    assert str(figures(*THREE, vague, alone)[1].panels[0].headline).endswith("in 1 of 2 solves")


def test_the_references_own_error_is_drawn_in_the_rows_where_it_is_not_far_below():
    vague = at(1e-4, (1e-3, 1e-2), bar=2e-4, problem="lorenz", sizes=())
    panel = figures(*THREE, vague)[1].panels[0]
    (own,) = [one for one in panel.series if one.name == "the reference's own error"]
    assert own.x == (2e-4,) and panel.y.names[int(own.y[0])].startswith("lorenz")
    assert panel_data(panel, {id: 0 for one in panel.series for id in one.cells})["series"][-1]["cells"] == []


@pytest.mark.parametrize("rows", [3, 40])
def test_every_name_is_within_the_figure_and_written_once(rows):
    solves = [at(1e-4, (1e-3, 1e-2), problem="van_der_pol", sizes=(("mu", 1000.0 + k),)) for k in range(rows)]
    figure = draw(figures(*solves, at(1e-8, (1e-3, 1e-2), problem="van_der_pol", sizes=(("mu", 1000.0),)))[1])
    left, right = figure.axes
    assert not any(tick.label1.get_visible() for tick in right.yaxis.get_major_ticks())
    boxes = [label.get_window_extent() for label in left.get_yticklabels()]
    assert min(box.x0 for box in boxes) > 0
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert all(above[0] >= below[1] for below, above in pairwise(heights)), "no name on another"
