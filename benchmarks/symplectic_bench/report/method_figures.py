"""Figures of suites that compare methods: for every problem, the error of the gradient against its time and memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from symplectic_bench.analysis.summary import LEADER, Line, display_place, lines_of
from symplectic_bench.contenders.contender_records import contender_record
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.report.figures import memory_time
from symplectic_bench.report.panels import (
    ERROR,
    TIME,
    Axis,
    FigureSpec,
    Panel,
    Style,
    VariedSizes,
    apart,
    can_be_drawn,
    collect,
    milliseconds,
    points_of,
    setting_of,
    short_name,
    style_of,
    varied_sizes,
)
from symplectic_bench.spec.status import Status

RESIDENT = Axis("growth of resident memory (MiB)")

COLORS = (
    ("#000000", "#FFFFFF"),
    ("#D55E00", "#FF781E"),
    ("#0072B2", "#2DA5E1"),
    ("#009E73", "#1EC396"),
    ("#CC79A7", "#F0A5C3"),
    ("#E69F00", "#FFC387"),
    ("#56B4E9", "#87D2FF"),
    ("#A51E0F", "#C32D4B"),
    ("#697896", "#9696B4"),
    ("#78782D", "#A5C378"),
)
"""The colours of the methods, on white and on a dark background, in the order in which the suite names them, and again
from the first beyond the last."""


def method_figures(frame: pd.DataFrame, where: str) -> list[FigureSpec]:
    """Return the figures of error against time and against memory, and that of the gradients of one method."""
    lines = [line for line in lines_of(frame) if line["status"] == Status.OK and can_be_drawn(line["error_true"])]
    shown = [line for line in lines if line["name"] == LEADER or line["contender"] != "ours"]
    caption = (
        "Work and precision: the error of the gradient relative to a converged reference, against {cost}; a line joins"
        " a method's tolerances or numbers of steps. Lower left is better. Ours is the symplectic gradient; hollow"
        " markers are of others. The dotted line, if there is one, is the reference's own error."
    )
    time = _figure("work-precision", "Error against time", caption.format(cost="its time"), where, shown, _time)
    cost = "the growth of a fresh process's memory, which counts every library's alike"
    memory = _figure("memory-precision", "Error against memory", caption.format(cost=cost), where, shown, _memory)
    several = {line["group_id"] for line in lines if line["contender"] == "ours" and line["name"] != LEADER}
    gradients = memory_time(pd.DataFrame(frame[[group in several for group in frame["group_id"]]]), where)
    return [figure for figure in (time, memory, gradients) if figure.blocks]


Cost = tuple[Axis, Callable[[Line], float | None]]

_time: Cost = (TIME, milliseconds)


def _mebibytes_resident(line: Line) -> float | None:
    return None if line["peak_rss_bytes"] is None else line["peak_rss_bytes"] / 2**20


_memory: Cost = (RESIDENT, _mebibytes_resident)


def _figure(name: str, title: str, caption: str, where: str, lines: Sequence[Line], cost: Cost) -> FigureSpec:
    """Return the figure with a panel for each problem."""
    colors = {method: COLORS[i % len(COLORS)] for i, method in enumerate(dict.fromkeys(c["method"] for c in lines))}
    varied = varied_sizes(lines)
    problems = collect(lines, lambda line: (line["problem"], line["batch"], *sorted(line["sizes"].items()))).values()
    panels = [panel for cells in problems if (panel := _panel(cells, cost, varied, colors)).series]
    return FigureSpec(name, title, caption, where, apart(panels))


def _panel(cells: Sequence[Line], cost: Cost, varied: VariedSizes, colors: dict[str, tuple[str, str]]) -> Panel:
    axis, measure = cost
    series = []
    for own in sorted(collect(cells, _line_of).values(), key=lambda own: display_place(own[0]["name"])):
        ordered, label = sorted(own, key=_coarsest_first), _label(own[0])
        for one in points_of(ordered, lambda c: (measure(c), c["error_true"])):
            series.append(replace(one, name=label, label=label, style=_style(own[0], colors)))
    bars = [c["error_true_bar"] for c in cells if can_be_drawn(c["error_true_bar"])]
    floor = (max(bars), "the reference's own error") if bars else None
    title, setting = short_name(cells[0]["problem"], varied), setting_of(cells[0], varied)
    return Panel(title, axis, ERROR, tuple(series), floor=floor, setting=setting)


def _line_of(line: Line) -> tuple[str, str, bool]:
    """Return the key that cells share if they differ only in their tolerance or in their number of steps."""
    return line["name"], line["method"], line["steps"] is None


def _label(line: Line) -> str:
    """Return the method, after the contender if it is not ours."""
    record = contender_record(line["contender"])
    method = line["gradient"] if record.own_methods else line["method"]
    return method if record.ours else f"{line['contender']} {method}"


def _style(line: Line, colors: dict[str, tuple[str, str]]) -> Style:
    """Return the colour of the method and the marker of the contender or, if it has methods of its own, of those."""
    own, of_gradient = contender_record(line["contender"]), gradient_record(line["gradient"])
    if own.own_methods:
        return style_of(line["contender"], line["gradient"])
    return Style(*colors[line["method"]], own.marker or of_gradient.marker, own.ours, not own.ours)


def _coarsest_first(line: Line) -> float:
    return -line["rtol"] if line["steps"] is None else line["steps"]
