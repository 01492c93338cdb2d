"""The figures of a suite's summary."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.analysis.pareto import pareto_front
from symplectic_bench.analysis.rounds import is_faster
from symplectic_bench.analysis.summary import FLOOR, LEADER, Line, display_place, lines_of
from symplectic_bench.report.error_figures import rounding, true_errors
from symplectic_bench.report.growth_figures import growth, powers
from symplectic_bench.report.headlines import Comparison, Headline
from symplectic_bench.report.leader_costs import EXPLAINED, are_decided, compared, leader_costs
from symplectic_bench.report.panels import (
    ERROR,
    MEMORY,
    TIME,
    Axis,
    FigureSpec,
    Panel,
    Series,
    VariedSizes,
    apart,
    can_be_drawn,
    collect,
    family_of,
    mebibytes,
    milliseconds,
    points_of,
    setting_of,
    short_name,
    style_of,
    varied_sizes,
)
from symplectic_bench.spec.status import Status

MANY = 12
"""The number of points above which only those on the front are labelled."""


def all_figures(frame: pd.DataFrame, where: str, exponents: Sequence[Line] = ()) -> list[FigureSpec]:
    """Return every figure of a summary that has something to show; `where` names the machine.

    exponents are those fitted for a suite's claims (analysis.exponents). If there are any, the figures show growth.
    """
    if exponents:
        figures = [powers(exponents, where), growth(frame, where)]
    elif all(line["total_s"] is None for line in lines_of(frame)):
        figures = [*true_errors(frame, where), rounding(frame, where)]
    else:
        timed = (over_floor, growth, work_precision, memory_time)
        figures = [draw(frame, where) for draw in timed]
    return [figure for figure in figures if figure.blocks]


def work_precision(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw true error against time and, beside it, against memory: a block per problem, a line per gradient.

    A line joins the accuracies. Problems with a single accuracy are shown only if no problem has more, and problems
    without a reference not at all.
    """
    lines = [line for line in lines_of(frame) if line["status"] == Status.OK]
    families = collect([line for line in lines if can_be_drawn(line["error_true"])], family_of)
    swept = [cells for cells in families.values() if len({_accuracy(c) for c in cells}) > 1]
    shown = swept or list(families.values())
    varied = varied_sizes(lines)
    finest = [_at_finest(cells) for cells in shown]
    places = [f" at {_short_accuracy(cells[0])}" for cells in finest]
    blocks = [
        (
            _precision_panel(cells, TIME, milliseconds, varied, compared(costs, "time", "error")),
            _precision_panel(cells, MEMORY, mebibytes, varied, compared(costs, "memory", "error")),
        )
        for cells, costs in zip(shown, leader_costs(finest, places), strict=True)
    ]
    caption = (
        "Work and precision: the error of the gradient relative to a converged reference, against its time and its"
        " memory; a line joins one gradient's tolerances. Lower left is better. The dotted line, if there is one, is"
        f" the reference's own error.{EXPLAINED}"
    )
    kept = [tuple(panel for panel in block if panel.series) for block in blocks]
    title = "Cost and accuracy of the gradient"
    return FigureSpec("work-precision", title, caption, where, tuple(block for block in kept if block))


def _at_finest(cells: Sequence[Line]) -> list[Line]:
    """Return the cells at the finest accuracy."""
    finest = max(map(_accuracy, cells), default=0.0)
    return [cell for cell in cells if _accuracy(cell) == finest]


def memory_time(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw memory against time, one panel per group, with the Pareto front of the comparable cells.

    Groups of a single cell compare nothing and are shown only if no group has more.
    """
    panels = [panel for _, panel in trade_offs(lines_of(frame))]
    caption = (
        "The grey line is the Pareto front: each point on it is faster than every leaner one on it, by more than the"
        f" 95 % interval of their ratio (the range of the rounds, if there are fewer than {FEWEST_ROUNDS}). Lower left"
        " is better, but the continuous gradients are not exact: their errors are in the tables. If there are many"
        " points, only those on the front are labelled. Each panel is a group; sizes that all cells of a problem"
        f" share are in the tables.{EXPLAINED}"
    )
    return FigureSpec("memory-time", "Memory against time", caption, where, apart(panels))


def trade_offs(lines: Sequence[Line]) -> list[tuple[list[Line], Panel]]:
    """Return the cells of each group with its panel of memory against time, as memory_time draws them."""
    varied = varied_sizes(lines)
    groups = list(collect(lines, lambda c: c["group_id"]).values())
    compared_groups = [cells for cells in groups if len(cells) > 1] or groups
    costs = leader_costs(compared_groups)
    return [
        (cells, _trade_off_panel(cells, varied, compared(own, "memory", "time")))
        for cells, own in zip(compared_groups, costs, strict=True)
    ]


def over_floor(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw time and memory over the floor, if it was measured: one column per gradient, one point per group."""
    lines = lines_of(frame)
    floors = {(c["group_id"], c["gradient"]) for c in lines if c["contender"] == FLOOR and c["comparable"]}
    cells = [c for c in lines if (c["group_id"], c["gradient"]) in floors and c["contender"] != FLOOR]
    measures = (("time", "time over the floor"), ("memory", "peak tensor memory over the floor"))
    panels = [_multiples_panel(cells, cost, label) for cost, label in measures]
    caption = (
        "Each point is a group: the cost of a gradient as a multiple of its own floor in the same group, that is, of"
        " the bare calls of f and its vector-Jacobian product and the tensors that it cannot avoid. At 1 nothing is"
        " lost."
    )
    panels = [panel for panel in panels if panel.series]
    return FigureSpec("over-floor", "Cost over the floor", caption, where, (tuple(panels),) if panels else ())


def _multiples_panel(cells: Sequence[Line], cost: str, label: str) -> Panel:
    key = f"{cost}_over_floor"
    known = [c for c in cells if c[key] is not None]
    names = tuple(sorted({c["name"] for c in known}, key=display_place))
    series = []
    for place, name in enumerate(names):
        own = [c for c in known if c["name"] == name]
        style = style_of(own[0]["contender"], own[0]["gradient"])
        x, y, ids = (float(place),) * len(own), tuple(c[key] for c in own), tuple(c["cell_id"] for c in own)
        series.append(Series(name, name, style, x, y, joined=False, cells=ids))
    x, y = Axis("", log=False, names=names), Axis("times the floor")
    floor = (1.0, "the floor")
    return Panel(label, x, y, tuple(series), floor=floor, headline=_over_floor_headline(known, cost))


def _over_floor_headline(cells: Sequence[Line], cost: str) -> Headline | None:
    """Return the range of LEADER's multiples of the floor, None if the rounds leave one of the times undecided."""
    key, leaders = f"{cost}_over_floor", [c for c in cells if c["name"] == LEADER]
    if not leaders or (cost == "time" and not all(are_decided(leaders, key))):
        return None
    values = [c[key] for c in leaders]
    return Comparison(LEADER.removeprefix("ours "), "the floor", ((cost, min(values), max(values)),))


def _precision_panel(
    cells: Sequence[Line],
    x: Axis,
    measure: Callable[[Line], float | None],
    varied: VariedSizes,
    headline: Headline | None,
) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=_accuracy)
        series += points_of(own, lambda c: (measure(c), c["error_true"]))
    bars = [c["error_true_bar"] for c in cells if can_be_drawn(c["error_true_bar"])]
    floor = (max(bars), "the reference's own error") if bars else None
    title, setting = short_name(cells[0]["problem"], varied), setting_of(cells[0], varied, cells[0]["method"])
    return Panel(title, x, ERROR, tuple(series), floor=floor, setting=setting, headline=headline)


def _trade_off_panel(cells: Sequence[Line], varied: VariedSizes, headline: Headline | None) -> Panel:
    shown = [c for c in cells if c["status"] == Status.OK and all(map(can_be_drawn, (milliseconds(c), mebibytes(c))))]
    series = [one for c in shown for one in points_of([c], lambda c: (milliseconds(c), mebibytes(c)), joined=False)]
    ranked = [
        (one, c)
        for one, c in zip(series, shown, strict=True)
        if c["comparable"] and c["contender"] != FLOOR  # the floor computes no gradient
    ]
    points = [(one.x[0], one.y[0]) for one, _ in ranked]
    front = tuple(points[i] for i in pareto_front(points, lambda i, j: is_faster(ranked[i][1], ranked[j][1])))
    dials = _dials(series)
    if len(series) > MANY:
        series = [one if (one.x[0], one.y[0]) in front else replace(one, label="") for one in series]
    title, setting = short_name(cells[0]["problem"], varied), setting_of(cells[0], varied, _accuracy_words(cells[0]))
    words = {"note": _absences(cells, shown), "setting": setting, "headline": headline}
    return Panel(title, TIME, MEMORY, tuple(series), labelled=True, front=front, dials=dials, **words)


def _dials(series: Sequence[Series]) -> tuple[Series, ...]:
    """Return a line through the points of each dial, in the order of memory."""
    found = [sorted(own, key=lambda one: one.y) for own in collect(series, lambda one: one.name).values()]
    return tuple(
        replace(own[0], label="", x=tuple(one.x[0] for one in own), y=tuple(one.y[0] for one in own), cells=())
        for own in found
        if len(own) > 1
    )


def _absences(cells: Sequence[Line], shown: Sequence[Line]) -> str:
    """Say which cells have no point and why, and which have a point but are not compared."""
    reasons = {
        c["name"]: "not measured" if c["status"] == Status.OK else str(c["status"]) for c in cells if c not in shown
    }
    reasons |= {c["name"]: "forward disagrees, not on the front" for c in shown if not c["comparable"]}
    names = {reason: [n for n, r in reasons.items() if r == reason] for reason in reasons.values()}
    return "; ".join(f"{why}: {'all' if len(n) == len(cells) else ', '.join(n)}" for why, n in names.items())


def _accuracy_words(line: Line) -> str:
    if line["steps"] is not None:
        return f"{line['method']}, {int(line['steps'])} steps"
    return f"{line['method']}, rtol {line['rtol']:g}, atol {line['atol']:g}"


def _short_accuracy(line: Line) -> str:
    return f"rtol {line['rtol']:g}" if line["steps"] is None else f"{int(line['steps'])} steps"


def _accuracy(line: Line) -> float:
    """Return a sort key, coarsest first."""
    return -line["rtol"] if line["steps"] is None else line["steps"]
