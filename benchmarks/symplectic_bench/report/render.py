"""Draw figures with matplotlib and write them to files."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from symplectic_bench.files.atomic import replacing
from symplectic_bench.report.panels import FigureSpec, Panel, Style

PANEL_WIDTH, PANEL_HEIGHT = 3.6, 3.6  # inches
LEGEND_HEIGHT = 0.9
NAMES = 18
"""The names on a y axis for which a panel's height is enough."""
CHARACTERS = 33
"""The length of a line of the figure's title, for each panel beside another."""
NARROW = 12
"""The longest name, in characters, that is not rotated."""
NEAR = 10
"""The factor by which a floor may lie below or above all points and still be shown, by extending the axis."""
LABEL_COLOR = "#333333"
"""The colour of the labels of points: as text, the lighter colours of series are too faint."""
SMALL: Any = {"fontsize": 7, "color": "#555555"}
LINE = 9
"""The height of a line of small text, in points."""
SHADE: Any = {"facecolor": "#888888", "alpha": 0.18, "linewidth": 0, "zorder": 0}
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 8.5,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "symplectic-adjoint",  # the same rows give the same bytes
}


METADATA: dict[str, Any] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""The metadata of each format, without dates and versions."""


def render(spec: FigureSpec, folder: Path, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write folder/<name>.svg and so on, and return the paths."""
    with matplotlib.rc_context(STYLE):
        return save(draw(spec), folder / spec.name, formats)


def save(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write the figure to path with each format's suffix. The same figure gives the same bytes."""
    files = [path.with_name(f"{path.name}.{form}") for form in formats]
    for file, form in zip(files, formats, strict=True):
        with replacing(file) as part:
            figure.savefig(part, format=form, dpi=150, metadata=METADATA[form])
    return files


def draw(spec: FigureSpec) -> Figure:
    """Draw the figure of a spec: panels in rows, and one legend below them."""
    wide, high = max(map(len, spec.rows)), len(spec.rows)
    names = max((len(panel.y.names) for panel in spec.panels), default=0)  # which stand beside the axes
    taller = max(1.0, names / NAMES)
    size = (PANEL_WIDTH * (wide + (names > 0)), PANEL_HEIGHT * taller * high + LEGEND_HEIGHT)
    # Not pyplot's, which would keep it and look for a display. Long names are wider in files than in the layout.
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.15 if names else None))
    FigureCanvasAgg(figure)
    figure.suptitle(fill(spec.heading, int(CHARACTERS * wide)), fontsize=11, fontweight="bold")
    grid = figure.add_gridspec(high, wide)
    drawn = []
    for i, row in enumerate(spec.rows):
        for j, panel in enumerate(row):
            drawn.append((figure.add_subplot(grid[i, j]), panel))
            _draw_panel(*drawn[-1])
            if j and panel.y.names and panel.y == row[j - 1].y:
                drawn[-1][0].tick_params(labelleft=False)  # the same names stand to the left
    _draw_legend(figure, [panel for panel in spec.panels if not _is_named(panel)], wide)
    figure.draw_without_rendering()  # labels are placed by the final layout
    figure.set_layout_engine("none")
    for axes, panel in drawn:
        if panel.labelled:
            _label_points(axes, panel)
    return figure


def _is_named(panel: Panel) -> bool:
    """Return whether the x axis names the series, so that they need no legend."""
    return all(series.name in panel.x.names for series in panel.series)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    _draw_title(axes, panel)
    axes.set_xlabel(panel.x.label)
    axes.set_ylabel(panel.y.label)
    if panel.front:
        axes.plot(*zip(*panel.front, strict=True), color="#999999", linewidth=4, alpha=0.4, zorder=1)
    for dial in panel.dials:
        axes.plot(dial.x, dial.y, color=dial.style.color, linewidth=1, alpha=0.6, zorder=1.5)
    for low, high in panel.shaded:
        axes.axvspan(low, high, **SHADE)
    for place, series in enumerate(panel.series):
        if series.doubt:
            axes.errorbar(series.x, series.y, series.doubt, fmt="none", ecolor=series.style.color, elinewidth=1)
        above = 2.9 - 0.01 * place  # the first of coinciding series is visible
        axes.plot(series.x, series.y, zorder=above, **_appearance(series.style, series.joined))
    _scale(axes, panel)
    low, high = axes.get_ylim()
    if panel.floor is not None and low / NEAR < panel.floor[0] < high * NEAR:
        height = panel.floor[0]
        axes.set_ylim(min(low, height / 2), high if height <= high else 2 * height)
        _draw_floor(axes, *panel.floor)
    if panel.note:
        axes.annotate(fill(panel.note, 54), (0, 0), (0, -38), "axes fraction", "offset points", fontsize=7, va="top")


def _draw_title(axes: Axes, panel: Panel) -> None:
    """Write the headline, or else the title, and below it, smaller, what else identifies the panel."""
    shown = panel.title if panel.headline is None else str(panel.headline)
    below = _parameters(panel.setting if panel.headline is None else panel.identity)
    axes.set_title(fill(shown, 40), fontweight="bold", pad=6 + LINE * (below.count("\n") + 1 if below else 0))
    if below:
        axes.annotate(below, (0.5, 1), (0, 5), "axes fraction", "offset points", ha="center", **SMALL)


def _parameters(words: str) -> str:
    """Break the list of parameters into lines, only at its commas."""
    unbroken = [part.replace(" ", "\u00a0") for part in words.split(", ")]
    return fill(", ".join(unbroken), 57)


def _draw_floor(axes: Axes, height: float, label: str) -> None:
    axes.axhline(height, color="#888888", linewidth=1, linestyle=":")
    across = axes.get_yaxis_transform()  # outside the panel, where no point can cover the label
    place = axes.transAxes.inverted().transform(axes.transData.transform((1, height)))[1]
    align = "bottom" if place < 1 / 3 else "top" if place > 2 / 3 else "center"  # within the height of the panel
    axes.text(1.01, height, label, transform=across, va=align, rotation=-90, fontsize=7, color="#666666")


def _appearance(style: Style, joined: bool) -> dict[str, Any]:
    return {
        "color": style.color,
        "marker": style.marker,
        "markersize": style.size,
        "markerfacecolor": style.color if style.filled else "white",
        "linestyle": ("--" if style.dashed else "-") if joined else "none",
        "linewidth": 1.4,
    }


def _scale(axes: Axes, panel: Panel) -> None:
    for axis, spec, of in ((axes.xaxis, panel.x, "x"), (axes.yaxis, panel.y, "y")):
        values = [value for series in panel.series for value in getattr(series, of)]
        if spec.names:
            axis.set_ticks(range(len(spec.names)), spec.names if of == "x" else [fill(name, 40) for name in spec.names])
            long = max(map(len, spec.names)) > NARROW
            axis.set_tick_params(labelrotation=90 if long and of == "x" else 0, labelsize=7 if long else 9)
            getattr(axes, f"set_{of}lim")(-0.7, len(spec.names) - 0.3)
        if spec.counts is not None:
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            getattr(axes, f"set_{of}lim")(1 - spec.counts / 25, spec.counts * 26 / 25)
        if not spec.log or not values:
            continue
        getattr(axes, f"set_{of}scale")("log")
        low, high = min(values), max(values)
        room = 5 if panel.labelled and of == "x" else 2  # for labels, which are placed to the right if possible
        getattr(axes, f"set_{of}lim")(low / 2, high * room)
        few_decades = high / low < 1e3
        roomy = high * room / low < (6e1 if of == "x" else 2e3)  # on x, numbers are side by side
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if roomy else (1,), numticks=7 if of == "x" else 12))
        axis.set_minor_locator(NullLocator())
        if few_decades:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_legend(figure: Figure, panels: Sequence[Panel], wide: int) -> None:
    styles = {series.name: series for panel in panels for series in panel.series}
    handles: list[Artist] = [
        Line2D([], [], label=name, **_appearance(series.style, series.joined)) for name, series in styles.items()
    ]
    if any(panel.front for panel in panels):
        handles.append(Line2D([], [], label="Pareto front", color="#999999", linewidth=4, alpha=0.4))
    if any(panel.shaded for panel in panels):
        handles.append(Patch(label="continuous closer to the truth", **SHADE))
    if not handles:
        return  # the axes name the series
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, 2 * wide), fontsize=8)


# Labels are placed ever further from their points until they overlap neither each other nor a point.

_DIRECTIONS = [(1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 2), (-1, 2), (1, -2), (-1, -2)]
_OFFSETS = [(8 * r * dx, 8 * r * dy) for r in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) for dx, dy in _DIRECTIONS]


def _label_points(axes: Axes, panel: Panel) -> None:
    points = [axes.transData.transform((series.x[0], series.y[0])) for series in panel.series]
    taken: list[BboxBase] = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    for series, (x, y) in zip(panel.series, points, strict=True):
        if not series.label:
            continue
        label = axes.annotate(
            series.label,
            (series.x[0], series.y[0]),
            (0, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            color=LABEL_COLOR,
            arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        )
        size = label.get_window_extent()
        offset, box = _free_place(x, y, size.width, size.height, taken, axes.bbox.padded(-4), axes.figure.dpi / 72)
        label.set_position(offset)
        label.set_horizontalalignment(_alignment(offset))
        taken.append(box)


def _free_place(
    x: float, y: float, width: float, height: float, taken: Sequence[BboxBase], frame: BboxBase, pixels: float
) -> tuple[tuple[float, float], BboxBase]:
    """Return the offset at which a label of this size overlaps the least, and its box there.

    The offset is in points; all else is in pixels, `pixels` to the point. Area outside the frame counts as overlap.
    """
    best, least = ((0.0, 0.0), frame), inf
    for dx, dy in _OFFSETS:
        left = x + dx * pixels - {"left": 0.0, "center": width / 2, "right": width}[_alignment((dx, dy))]
        box = Bbox.from_bounds(left, y + dy * pixels - height / 2, width, height)
        hidden = width * height - _common(box, frame) + sum(_common(box, other) for other in taken)
        if hidden < least - 1e-6:
            best, least = ((dx, dy), box), hidden
    return best


def _common(a: BboxBase, b: BboxBase) -> float:
    """Return the area that two boxes share."""
    return max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))


def _alignment(offset: tuple[float, float]) -> Literal["left", "center", "right"]:
    return "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
