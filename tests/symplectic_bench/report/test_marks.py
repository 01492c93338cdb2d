"""What a figure shows: the points, scales, colours and markers that matplotlib is given."""

import pytest

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.report.figures import memory_time, work_precision
from symplectic_bench.report.panels import style_of
from symplectic_bench.report.render import draw
from tests.symplectic_bench.sample_rows import group

WHERE = "Measured here."


@pytest.fixture
def swept():
    rows = [row for rtol in (1e-3, 1e-6, 1e-9) for row in group(rtol=rtol, atol=rtol / 100)]
    return summarize(rows)


@pytest.mark.parametrize("make", [work_precision, memory_time])
def test_every_point_is_drawn_where_it_belongs(swept, make):
    spec = make(swept, WHERE)
    figure = draw(spec)
    panels = spec.panels
    assert len(panels) == len(figure.axes)
    for axes, panel in zip(figure.axes, panels, strict=True):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert (axes.get_xlabel(), axes.get_ylabel()) == (panel.x.label, panel.y.label)
        drawn = {
            (tuple(line.get_xdata()), tuple(line.get_ydata()), line.get_color(), line.get_marker())
            for line in axes.lines
        }
        for one in panel.series:
            assert (one.x, one.y, one.style.color, one.style.marker) in drawn
            low, high = axes.get_xlim()
            assert all(low <= x <= high for x in one.x)


def test_ours_is_filled_and_solid_and_others_are_hollow_and_dashed(swept):
    spec = work_precision(swept, WHERE)
    panel, axes = spec.rows[0][0], draw(spec).axes[0]
    for one in panel.series:
        (line,) = [x for x in axes.lines if tuple(x.get_ydata()) == one.y and tuple(x.get_xdata()) == one.x]
        ours = one.name.startswith("ours")
        assert line.get_markerfacecolor() == (line.get_color() if ours else "white")
        assert line.get_linestyle() == ("-" if ours else "--")


@pytest.mark.parametrize(
    ("gradient", "color", "marker"),
    [
        ("symplectic", "#D55E00", "o"),
        ("aca", "#0072B2", "s"),
        ("baseline", "#009E73", "^"),
        ("stages", "#CC79A7", "D"),
        ("backprop", "#000000", "P"),
        ("continuous", "#56B4E9", "X"),
        ("continuous-seminorm", "#E69F00", "v"),
        ("revolve-8", "#E196A5", "*"),
        ("graphs-4", "#69695A", "H"),
        ("disk", "#697896", "h"),
        ("auto", "#A51E0F", "8"),
        ("reversible", "#4B0087", "<"),
        ("mali", "#006978", ">"),
    ],
)
def test_a_gradient_keeps_the_colour_and_marker_of_the_published_figures(gradient, color, marker):
    """Figures of two versions are read side by side."""
    for contender in ("ours", "torchdiffeq"):
        style = style_of(contender, gradient)
        assert (style.color, style.marker) == (color, marker)
