"""Figures of suites that compare methods: a panel per problem, a line per method."""

from dataclasses import replace

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.contenders.gradient_records import GRADIENT_RECORDS
from symplectic_bench.report.method_figures import COLORS, method_figures
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import group

WHERE = "Measured here."


def rows_of(problem, *methods, contenders=(("ours", "symplectic"),), rtols=(1e-3, 1e-6)):
    return [
        row
        for method in methods
        for rtol in rtols
        for row in group(contenders, problem=problem, sizes=(), method=method, rtol=rtol, atol=rtol / 100)
    ]


def figures_of(rows):
    return {figure.name: figure for figure in method_figures(summarize(rows), WHERE)}


def panels_of(figure):
    return list(figure.panels)


def test_a_problems_methods_are_lines_of_one_panel_from_coarse_to_fine():
    figures = figures_of(rows_of("linear", "dopri5", "kvaerno5") + rows_of("lorenz", "kvaerno5"))
    assert list(figures) == ["work-precision", "memory-precision"]
    for figure in figures.values():
        linear, lorenz = panels_of(figure)
        assert (linear.title, lorenz.title, lorenz.setting) == ("linear", "lorenz", "batch 128, float64")
        assert [(one.name, one.y) for one in linear.series] == [("dopri5", (2e-3, 2e-6)), ("kvaerno5", (2e-3, 2e-6))]
        assert [one.style.color for one in linear.series] == [light for light, _ in COLORS[:2]]
        assert linear.series[1].style == lorenz.series[0].style


def test_others_are_named_and_have_the_colour_of_their_method_or_of_their_own():
    contenders = (("ours", "symplectic"), ("diffrax", "backprop"), ("scipy", "differences-bdf"))
    (panel,) = panels_of(figures_of(rows_of("linear", "kvaerno5", contenders=contenders))["work-precision"])
    ours, diffrax, scipy = panel.series
    assert (ours.name, diffrax.name, scipy.name) == ("kvaerno5", "diffrax kvaerno5", "scipy differences-bdf")
    assert ours.style.color == diffrax.style.color and ours.style.filled > diffrax.style.filled
    assert scipy.style.color == GRADIENT_RECORDS["differences-bdf"].color


def test_memory_is_that_of_the_process_which_every_library_has():
    rows = rows_of("linear", "kvaerno5", contenders=(("diffrax", "backprop"),))
    rows = [replace(row, peak_tensor_bytes=None, peak_rss_bytes=3 * 2**20) for row in rows]
    (panel,) = panels_of(figures_of(rows)["memory-precision"])
    assert panel.series[0].x == (3.0, 3.0)


def test_other_gradients_of_ours_are_compared_in_a_figure_of_their_own():
    contenders = (("ours", "symplectic"), ("ours", "backprop"))
    rows = rows_of("linear", "kvaerno5", contenders=contenders, rtols=(1e-5,)) + rows_of("lorenz", "kvaerno3", "trbdf2")
    figures = figures_of(rows)
    assert len(panels_of(figures["memory-time"])) == 1
    assert "ours backprop" not in {one.name for panel in panels_of(figures["work-precision"]) for one in panel.series}


def test_what_failed_or_has_no_reference_is_left_out():
    rows = rows_of("linear", "dopri5")
    failed = [replace(row, status=Status.TIMEOUT, error_true=None) for row in rows]
    assert figures_of(failed) == {}
    assert figures_of([replace(row, error_true=None) for row in rows]) == {}
