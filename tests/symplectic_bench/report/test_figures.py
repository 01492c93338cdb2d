import dataclasses
import math
from dataclasses import replace

import pytest
from matplotlib.text import Text

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.contenders.contender_records import CONTENDER_RECORDS
from symplectic_bench.contenders.gradient_records import GRADIENT_RECORDS, UNKNOWN_COLOR, UNKNOWN_MARKER
from symplectic_bench.report.figures import all_figures, memory_time, over_floor, work_precision
from symplectic_bench.report.growth_figures import growth
from symplectic_bench.report.panels import style_of
from symplectic_bench.report.render import draw, render
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import NINE, UNMEASURED, a_cell, a_row, errors_alone, first_look, group

WHERE = "Measured here."


def panels(spec):
    return list(spec.panels)


def series_of(panel):
    return {series.name: series for series in panel.series}


def changed(rows, name, **changes):
    return [replace(row, **changes) if row.cell.name == name else row for row in rows]


def test_a_colour_and_a_marker_belong_to_one_gradient():
    records = GRADIENT_RECORDS.values()
    assert len({record.color for record in records}) == len({record.marker for record in records}) == len(records)
    assert style_of("ours", "revolve-8") == style_of("ours", "revolve")


def test_a_gradient_and_a_contender_without_a_record_can_be_drawn():
    style = style_of("theirs", "unheard-of")
    assert (style.color, style.marker, style.filled) == (UNKNOWN_COLOR, UNKNOWN_MARKER, False)
    assert style_of("theirs", "aca") == style_of("torchdiffeq", "aca")


def test_ours_and_theirs_share_the_colour_of_a_gradient_and_differ_otherwise():
    ours, theirs = style_of("ours", "backprop"), style_of("torchdiffeq", "backprop")
    assert ours.color == theirs.color
    assert (ours.filled, ours.dashed) != (theirs.filled, theirs.dashed)
    assert len({style_of(*pair) for pair in NINE}) == 9


def test_a_style_does_not_depend_on_what_else_is_drawn():
    (alone,) = panels(memory_time(summarize(group([("ours", "aca")])), WHERE))
    (among,) = panels(memory_time(summarize(group()), WHERE))
    assert series_of(alone)["ours aca"].style == series_of(among)["ours aca"].style


def test_work_precision_joins_a_gradients_tolerances_from_coarse_to_fine():
    rows = [row for rtol in (1e-9, 1e-3, 1e-6) for row in group(rtol=rtol, atol=rtol / 100)]
    time, memory = panels(work_precision(summarize(rows), WHERE))
    assert series_of(time)["ours aca"].y == (2e-3, 2e-6, 2e-9)
    assert series_of(time)["ours aca"].x == tuple(sorted(series_of(time)["ours aca"].x))
    assert series_of(memory)["ours aca"].y == series_of(time)["ours aca"].y
    assert ("ms" in time.x.label, "MiB" in memory.x.label) == (True, True)
    assert time.floor == (3e-10, "the reference's own error")


def test_problems_at_one_accuracy_are_shown_only_if_none_has_more():
    swept = [row for rtol in (1e-3, 1e-6) for row in group(rtol=rtol, atol=rtol / 100)]
    single = group(problem="van_der_pol", sizes=())
    shown = panels(work_precision(summarize(swept + single), WHERE))
    assert [panel.identity for panel in shown] == ["mlp, batch 128, float64, dopri5"] * 2
    assert len(panels(work_precision(summarize(group(seed=1) + single), WHERE))) == 4


def test_a_problem_without_a_reference_has_no_empty_panel():
    unknown = [replace(row, error_true=None) for row in group(problem="van_der_pol", sizes=())]
    shown = panels(work_precision(summarize(group() + unknown), WHERE))
    assert [panel.identity for panel in shown] == ["mlp, batch 128, float64, dopri5"] * 2
    assert not panels(work_precision(summarize(unknown), WHERE))


def test_a_zero_error_cannot_be_drawn_and_is_omitted():
    rows = changed(group() + group(rtol=1e-3, atol=1e-5), "ours aca", error_true=0.0)
    assert "ours aca" not in series_of(panels(work_precision(summarize(rows), WHERE))[0])


def test_the_trade_off_has_a_panel_a_group():
    spec = memory_time(summarize(first_look()), WHERE)
    assert [len(row) for row in spec.rows] == [3, 3, 1]
    assert all(panel.labelled for panel in panels(spec))


def test_a_panel_names_the_sizes_that_distinguish_it_from_others():
    shown = panels(memory_time(summarize(first_look()), WHERE))
    assert shown[0].identity == "mlp, batch 128, float64, dopri5, rtol 0.001, atol 1e-05"
    assert (shown[3].title, shown[3].setting) == (
        "flow",
        "data=digits, batch 100, float32, dopri5, rtol 1e-05, atol 1e-07",
    )


def test_the_front_is_drawn_through_the_points_that_no_other_beats():
    (panel,) = panels(memory_time(summarize(group()), WHERE))
    points = series_of(panel)
    expected = [points[f"ours {name}"] for name in ("backprop", "aca", "symplectic", "continuous")]
    assert panel.front == tuple((series.x[0], series.y[0]) for series in expected)


def test_settings_of_a_dial_are_joined_and_a_budget_is_named_in_mebibytes():
    names = [("ours", "auto-8192"), ("ours", "auto-512"), ("ours", "revolve-8"), ("ours", "auto-2048"), ("ours", "aca")]
    (panel,) = panels(memory_time(summarize(group(names)), WHERE))
    (dial,) = panel.dials
    own = [one for one in panel.series if one.name == "ours auto-N"]
    assert {(one.x[0], one.y[0]) for one in own} == set(zip(dial.x, dial.y, strict=True)) and len(dial.x) == 3
    assert list(dial.y) == sorted(dial.y) and dial.style == own[0].style
    assert {one.label for one in panel.series} == {"auto 8 MiB", "auto 0.5 MiB", "auto 2 MiB", "revolve-8", "aca"}


def test_cells_without_a_point_are_named_with_the_reason():
    rows = changed(group(), "ours aca", status=Status.OOM)
    rows = changed(rows, "ours stages", status=Status.OOM)
    rows = changed(rows, "ours continuous", forward_disagrees=True)
    (panel,) = panels(memory_time(summarize(rows), WHERE))
    assert panel.note == "oom: ours aca, ours stages; forward disagrees, not on the front: ours continuous"
    disagreeing = series_of(panel)["ours continuous"]
    assert (disagreeing.x[0], disagreeing.y[0]) not in panel.front


def test_a_group_in_which_every_cell_failed_is_still_a_panel():
    rows = [replace(row, status=Status.TIMEOUT) for row in group()]
    (panel,) = panels(memory_time(summarize(rows), WHERE))
    assert (panel.series, panel.front, panel.note) == ((), (), "timeout: all")
    assert [figure.name for figure in all_figures(summarize(rows), WHERE)] == ["memory-time"]


def test_figures_are_frozen_data():
    with pytest.raises(dataclasses.FrozenInstanceError):
        panels(memory_time(summarize(group()), WHERE))[0].title = "x"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    spec = memory_time(summarize(group()), WHERE)
    svg, png = render(spec, tmp_path / "a")
    again = render(spec, tmp_path / "b")
    assert [path.read_bytes() for path in (svg, png)] == [path.read_bytes() for path in again]
    assert b"<dc:date>" not in svg.read_bytes()
    assert str(tmp_path).encode() not in svg.read_bytes()


def test_labels_of_points_do_not_overlap():
    figure = draw(memory_time(summarize(group()), WHERE))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    labels = axes.texts[1:]  # after the parameters
    words = [Text.get_window_extent(label) for label in labels]  # without the lines to the points
    assert len(words) == 9
    assert not [1 for i, a in enumerate(words) for b in words[:i] if a.overlaps(b)]


def test_a_figure_of_failures_only_has_an_empty_panel_that_says_so():
    figure = draw(memory_time(summarize([replace(row, status=Status.TIMEOUT) for row in group()]), WHERE))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts[1:]] == ["timeout: all"], "after the parameters"
    assert axes.get_title() and not axes.lines and not axes.collections


class TestNearTheFloor:
    TEN = (*NINE, ("floor", "aca"), ("diffrax", "backprop"))

    def test_a_column_is_a_gradient_whose_floor_was_measured_and_a_point_a_group(self):
        rows = [*group(self.TEN), *group(self.TEN, seed=1)]
        unit = {"total_s": 1.0, "forward_samples_s": [0.5] * 5, "backward_samples_s": [0.5] * 5}
        rows = [replace(row, **unit, peak_tensor_bytes=10) if row.contender == "floor" else row for row in rows]
        time, memory = panels(over_floor(summarize(rows), WHERE))
        assert time.x.names == memory.x.names == ("ours aca",)
        (series,) = time.series
        assert series.x == (0.0, 0.0)
        assert series.y == pytest.approx([row.total_s for row in rows if row.cell.name == "ours aca"])
        assert time.floor == (1.0, "the floor")

    def test_without_a_measured_floor_there_is_no_figure(self):
        assert over_floor(summarize(group()), WHERE).rows == ()

    def test_the_floor_is_drawn_among_the_others_and_is_not_on_the_front(self):
        rows = changed(group(self.TEN), "floor aca", total_s=1e-9, peak_tensor_bytes=1)
        (panel,) = panels(memory_time(summarize(rows), WHERE))
        floor = series_of(panel)["floor aca"]
        assert (floor.x[0], floor.y[0]) not in panel.front
        assert len(panel.front) == 4

    def test_its_names_stand_on_the_axis_and_not_in_a_legend(self):
        figure = draw(over_floor(summarize(group(self.TEN)), WHERE))
        assert figure.legends == []
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["ours aca"]


class TestGrowth:
    def test_a_line_joins_cells_that_differ_only_in_the_number_of_steps(self):
        fixed = {"rtol": None, "atol": None, "method": "rk38"}
        rows = [
            a_row(a_cell(steps=steps, **fixed), total_s=steps * 1e-3, peak_tensor_bytes=steps * 2**20)
            for steps in (100, 10, 1000)
        ]
        time, memory = panels(growth(summarize(rows), WHERE))
        for panel in (time, memory):
            (series,) = panel.series
            assert series.x == (10, 100, 1000)
            assert panel.x.label == "number of steps" and panel.setting.endswith("rk38")
        assert time.series[0].y == pytest.approx((10, 100, 1000)) and memory.series[0].y == (10, 100, 1000)

    def test_outputs_grow_too_and_are_not_in_the_title(self):
        rows = [row for n in (1, 10, 100) for row in group([("ours", "aca")], sizes=(("outputs", n), ("state", 8)))]
        time, _ = panels(growth(summarize(rows), WHERE))
        assert (time.x.label, time.identity) == ("number of outputs", "mlp, batch 128, float64, dopri5")
        assert time.series[0].x == (1, 10, 100)

    def test_two_values_show_no_growth(self):
        rows = [row for n in (1, 10) for row in group(sizes=(("outputs", n),))]
        assert growth(summarize(rows), WHERE).rows == ()


def test_groups_of_one_cell_are_not_shown_beside_groups_that_compare():
    alone = group([("ours", "aca")], seed=1)
    assert len(panels(memory_time(summarize(group() + alone), WHERE))) == 1
    assert len(panels(memory_time(summarize(alone), WHERE))) == 1


def test_contenders_with_the_same_gradient_look_different():
    assert len({style_of(name, "backprop") for name in CONTENDER_RECORDS}) == len(CONTENDER_RECORDS)


class TestErrorsAlone:
    def test_suites_that_measure_errors_only_have_figures_of_their_own(self):
        assert [figure.name for figure in all_figures(summarize(errors_alone()), WHERE)] == ["true-errors", "rounding"]
        assert "true-errors" not in [figure.name for figure in all_figures(summarize(first_look()), WHERE)]

    def test_a_line_is_a_gradient_over_tolerances_and_exact_gradients_share_one(self):
        figure, _ = all_figures(summarize(errors_alone()), WHERE)
        (panel,) = panels(figure)
        series = series_of(panel)
        assert series["ours symplectic"].x == (1e-2, 1e-4, 1e-6)
        assert series["ours symplectic"].y == (2e-2, 2e-4, 2e-6)
        assert not {"ours aca", "ours backprop", "ours stages"} & set(series)
        assert {"ours continuous", "torchdiffeq backprop", "torchdiffeq continuous"} <= set(series)
        # 20 times nearer at 1e-2 and 20 times further at 1e-4: the powers cross in the middle.
        assert [tuple(round(math.log10(x), 9) for x in stretch) for stretch in panel.shaded] == [(-3, -2)]
        (shade,) = draw(figure).axes[0].patches
        assert shade.get_x() == pytest.approx(1e-3)
        assert panel.floor is None  # the reference is known far below what is drawn

    def test_intervals_in_which_the_continuous_adjoint_is_nearer_are_joined_and_may_be_several(self):
        def panel_of(*ratios):
            found = []
            for place, times in enumerate(ratios):
                rows = group(rtol=10.0**-place, atol=1e-9)
                rows = [replace(r, error_true=times if r.gradient == "continuous" else 1.0, **UNMEASURED) for r in rows]
                found += rows
            (panel,) = panels(all_figures(summarize(found), WHERE)[0])
            return [tuple(round(math.log10(x), 9) for x in stretch) for stretch in panel.shaded]

        assert panel_of(0.1, 0.1, 0.1) == [(-2, 0)]
        assert panel_of(10, 10, 10) == []
        assert panel_of(0.1, 10, 0.1) == [(-2, -1.5), (-0.5, 0)]
        assert panel_of(10, 0.1, 0.1, 10) == [(-2.5, -0.5)]

    def test_rounding_is_drawn_over_the_steps_with_the_last_place_below(self):
        _, figure = all_figures(summarize(errors_alone()), WHERE)
        single, double = panels(figure)
        assert single.floor[0] == 2.0**-24 and double.floor[0] == 2.0**-53
        assert series_of(double)["ours symplectic"].x == (10.0, 100.0)
        colors = {series.style.color for series in double.series}
        assert len(colors) == len(double.series) == 2

    def test_a_floor_just_below_the_points_is_within_the_axes(self):
        _, figure = all_figures(summarize(errors_alone()), WHERE)
        axes = draw(figure).axes[0]
        assert axes.get_ylim()[0] < 2.0**-24


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e308, math.inf, math.nan, 0.0, 2**63 - 1, None])
@pytest.mark.parametrize("name", ["total_s", "error_true", "error_true_bar", "error_discrete", "floor_s"])
def test_a_value_that_no_axis_can_show_is_left_out(tmp_path, name, value):
    rows = [row for rtol in (1e-3, 1e-6) for row in group(NINE[:3], rtol=rtol, atol=rtol)]
    for odd in (rows[:1], rows):
        found = [replace(row, **{name: value}) if row in odd else row for row in rows]
        for spec in all_figures(summarize(found), WHERE):
            for axes in draw(spec).axes:
                assert all(math.isfinite(limit) for limit in (*axes.get_xlim(), *axes.get_ylim()))


@pytest.mark.parametrize(("factor", "shown"), [(5, True), (1e6, False)])
def test_a_floor_above_all_points_is_shown_if_it_is_near(factor, shown):
    errors = group(NINE[:3])
    bar = factor * max(row.error_true for row in errors)
    spec = work_precision(summarize([replace(row, error_true_bar=bar) for row in errors]), WHERE)
    axes = draw(spec).axes[0]
    assert (bar < axes.get_ylim()[1]) == shown == ("the reference's own error" in [t.get_text() for t in axes.texts])
