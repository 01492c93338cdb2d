"""The figures of growth: costs against one size, and the exponents fitted to them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from symplectic_bench.analysis.power_law import FEWEST, Exponent, fit
from symplectic_bench.analysis.summary import LEADER, Line, display_place, lines_of
from symplectic_bench.report.headlines import Headline, Share
from symplectic_bench.report.leader_costs import EXPLAINED, OTHERS, compared, leader_costs
from symplectic_bench.report.panels import (
    MEMORY,
    TIME,
    Axis,
    FigureSpec,
    Panel,
    Series,
    Style,
    VariedSizes,
    apart,
    collect,
    mebibytes,
    milliseconds,
    points_of,
    setting_of,
    short_name,
    style_of,
    varied_sizes,
)
from symplectic_bench.spec.criteria import measure_label
from symplectic_bench.spec.status import Status


def growth(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw time and, beside it, memory against each GROWING axis, for the longest series of three or more values."""
    lines = [line for line in lines_of(frame) if line["status"] == Status.OK]
    varied = varied_sizes(lines)
    families = [
        (axis, cells, len({_number(c, axis) for c in cells} - {None}))
        for axis in GROWING
        for cells in collect(lines, lambda c, a=axis: _without(c, a)).values()
    ]
    longest: dict[object, int] = {}
    for axis, cells, length in families:
        kind = (axis, cells[0]["problem"])
        longest[kind] = max(longest.get(kind, 3), length)
    grown = [(axis, cells) for axis, cells, length in families if length == longest[axis, cells[0]["problem"]]]
    largest = [_largest(cells, axis) for axis, cells in grown]
    places = [f" at {n:g} {axis}" for (n, _), (axis, _) in zip(largest, grown, strict=True)]
    costs = leader_costs([cells for _, cells in largest], places)
    blocks = [
        (
            _growth_panel(cells, axis, TIME, milliseconds, varied, compared(own, "time")),
            _growth_panel(cells, axis, MEMORY, mebibytes, varied, compared(own, "memory")),
        )
        for (axis, cells), own in zip(grown, costs, strict=True)
    ]
    caption = (
        "The cost of a gradient as one size grows. A slope of one is linear growth: ten times the size costs ten times"
        f" as much.{EXPLAINED}"
    )
    return FigureSpec("growth", "Growth", caption, where, tuple(blocks))


def _largest(cells: Sequence[Line], axis: str) -> tuple[float, list[Line]]:
    """Return the largest size that LEADER and a gradient to compare with have, with its cells; 0 if there is none."""
    by_size = collect(cells, lambda c: _number(c, axis))
    for size in sorted((n for n in by_size if isinstance(n, int | float)), reverse=True):
        found = {c["name"] for c in by_size[size] if c["comparable"]}
        if LEADER in found and found & {*OTHERS}:
            return size, by_size[size]
    return 0, []


GROWING = ("steps", "outputs", "components", "layers")


def _number(line: Line, axis: str) -> float | None:
    found = line["steps"] if axis == "steps" else line["sizes"].get(axis)
    return None if isinstance(found, str) else found  # a user's problem may give its size any meaning


def _without(line: Line, axis: str) -> tuple[object, ...]:
    """Return the key that cells share if they differ only in this axis, contender or gradient."""
    axes = ("problem", "batch", "method", "dtype", "device", "threads", "seed", "rtol", "steps")
    sizes = sorted((name, size) for name, size in line["sizes"].items() if name != axis)
    return (*(line[name] for name in axes if name != axis), *sizes, _number(line, axis) is None)


def powers(exponents: Sequence[Line], where: str) -> FigureSpec:
    """Draw every gradient's exponent along every axis, with its interval: one panel per measure."""
    caption = (
        "The exponent p of growth as x^p, fitted to the longest series of cells that differ only in x, with its 95 %"
        " confidence interval. 0 is constant, 1 is linear, 2 is quadratic. Series of fewer than"
        f" {FEWEST_DRAWN} points are left out: their intervals are wide whatever they show. A bar is the exponent that"
        " a claim predicts for the series; as predicted: within the claim's limit of it."
    )
    shown = [line for line in exponents if line["points"] >= FEWEST_DRAWN]
    panels = [_powers_panel(lines) for lines in collect(shown, lambda line: line["measure"]).values()]
    return FigureSpec("exponents", "Exponents of growth", caption, where, apart(panels))


FEWEST_DRAWN = 4
"""The fewest points of a series whose exponent is drawn."""

PREDICTED = Style("#777777", "#AAAAAA", "_", filled=True, dashed=False, size=10)


SPREAD = 0.7
"""The fraction of the space between two axes that the gradients, side by side, occupy."""


def _powers_panel(lines: Sequence[Line]) -> Panel:
    axes = tuple(dict.fromkeys(str(line["axis"]) for line in lines))
    names = list(dict.fromkeys(line["name"] for line in lines))
    series = []
    predicted: list[tuple[float, float]] = []
    for place, name in enumerate(names):
        own = [line for line in lines if line["name"] == name]
        shift = SPREAD * ((place + 0.5) / len(names) - 0.5)
        x = tuple(axes.index(line["axis"]) + shift for line in own)
        y, doubt = (tuple(line[key] for line in own) for key in ("exponent", "half_width"))
        style = style_of(own[0]["contender"], own[0]["gradient"])
        series.append(Series(name, name, style, x, y, joined=False, doubt=doubt))
        predicted += [(at, line["predicted"]) for at, line in zip(x, own, strict=True) if line["predicted"] is not None]
    if predicted:
        x, y = zip(*predicted, strict=True)
        series.append(Series("predicted", "predicted", PREDICTED, x, y, joined=False))
    known = [line["as_predicted"] for line in lines if line["predicted"] is not None]
    headline = Share(sum(known), len(known), "{} exponents as predicted") if known else None
    title, x = measure_label(lines[0]["measure"]), Axis("", log=False, names=axes)
    return Panel(title, x, Axis("exponent", log=False), tuple(series), headline=headline)


def _growth_panel(
    cells: Sequence[Line],
    axis: str,
    y: Axis,
    measure: Callable[[Line], float | None],
    varied: VariedSizes,
    headline: Headline | None,
) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=lambda c: _number(c, axis) or 0)
        found = points_of(own, lambda c: (_number(c, axis), measure(c)))
        series += [replace(one, power=_power(one)) for one in found]
    others = {problem: names - {axis} for problem, names in varied.items()}
    title, setting = short_name(cells[0]["problem"], varied), setting_of(cells[0], others, cells[0]["method"])
    return Panel(title, Axis(f"number of {axis}"), y, tuple(series), setting=setting, headline=headline)


def _power(series: Series) -> Exponent | None:
    """Return the exponent fitted to a series, None if it has too few points for one."""
    return fit(list(zip(series.x, series.y, strict=True))) if len(set(series.x)) >= FEWEST else None
