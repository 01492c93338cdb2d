"""The figures of a suite's summary."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pandas as pd

from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.analysis.pareto import pareto_front
from symplectic_bench.analysis.power_law import FEWEST, Exponent, fit
from symplectic_bench.analysis.rounds import is_faster
from symplectic_bench.analysis.summary import FLOOR, LEADER, Line, display_place, lines_of
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.report.panels import (
    DISCRETE,
    ERROR,
    MEMORY,
    STEPS,
    TIME,
    TOLERANCE,
    Axis,
    FigureSpec,
    Panel,
    Series,
    VariedSizes,
    can_be_drawn,
    collect,
    grid,
    mebibytes,
    milliseconds,
    points_of,
    style_of,
    title_of,
    varied_sizes,
)
from symplectic_bench.spec.criteria import measure_label
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
    return [figure for figure in figures if figure.rows]


def true_errors(frame: pd.DataFrame, where: str) -> list[FigureSpec]:
    """Draw true error against tolerance, for suites that measure only errors: one panel per problem and method.

    If some have three tolerances or more, the others are drawn in a second figure.
    """
    caption = (
        "The error of a gradient relative to that of the continuous problem, against the tolerance. The exact"
        " gradients of one solve are drawn as one line, symplectic's. In the shaded intervals the continuous adjoint is"
        " closer to the true gradient than the exact gradient of the steps; the two cross at the edges. The dotted"
        " line, if there is one, is the reference's own error."
    )
    title = "True error of the gradient"
    ladders = _panels_over(frame, "rtol", _tolerance_panel, fewest=3)
    if not ladders:
        return [FigureSpec("true-errors", title, caption, where, _panels_over(frame, "rtol", _tolerance_panel))]
    others = _panels_over(frame, "rtol", _tolerance_panel, most=2)
    return [
        FigureSpec("true-errors", title, caption, where, ladders),
        FigureSpec("true-errors-others", f"{title}, at two tolerances", caption, where, others),
    ]


def rounding(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw discrete error against steps, for suites that measure only errors: a panel per problem, method and dtype."""
    caption = (
        "The error of a gradient relative to that of the steps taken, which are replayed in float64 for float32 and,"
        " if the problem is small enough, in fifty digits for float64. The dotted line is half a unit in the last"
        " place."
    )
    return FigureSpec("rounding", "Rounding", caption, where, _panels_over(frame, "steps", _rounding_panel))


def _panels_over(
    frame: pd.DataFrame,
    axis: str,
    panel: Callable[[Sequence[Line], VariedSizes], Panel],
    fewest: int = 2,
    most: float = math.inf,
) -> tuple[tuple[Panel, ...], ...]:
    """Return a panel for each family of cells with fewest to most values of the axis, "rtol" or "steps"."""
    lines = [line for line in lines_of(frame) if line["status"] == Status.OK and line[axis] is not None]
    varied = varied_sizes(lines)
    families = collect(lines, _family).values()
    return grid([panel(cells, varied) for cells in families if fewest <= len({c[axis] for c in cells}) <= most])


def work_precision(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw true error against time and, below, against memory: one column per problem, one line per gradient.

    A line joins the accuracies. Problems with a single accuracy are shown only if no problem has more, and problems
    without a reference not at all.
    """
    lines = [line for line in lines_of(frame) if line["status"] == Status.OK]
    families = collect([line for line in lines if can_be_drawn(line["error_true"])], _family)
    swept = [cells for cells in families.values() if len({_accuracy(c) for c in cells}) > 1]
    shown = swept or list(families.values())
    varied = varied_sizes(lines)
    above = tuple(_precision_panel(cells, TIME, milliseconds, varied) for cells in shown)
    below = tuple(_precision_panel(cells, MEMORY, mebibytes, varied) for cells in shown)
    rows = (above + below,) if len(shown) == 1 else (above, below)
    caption = (
        "Work and precision: the error of the gradient relative to a converged reference, against its time and its"
        " memory; a line joins one gradient's tolerances. Lower left is better. The dotted line, if there is one, is"
        " the reference's own error."
    )
    rows = tuple(row for row in rows if any(panel.series for panel in row))
    return FigureSpec("work-precision", "Cost and accuracy of the gradient", caption, where, rows)


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
        " share are in the tables."
    )
    return FigureSpec("memory-time", "Memory against time", caption, where, grid(panels))


def trade_offs(lines: Sequence[Line]) -> list[tuple[list[Line], Panel]]:
    """Return the cells of each group with its panel of memory against time, as memory_time draws them."""
    varied = varied_sizes(lines)
    groups = list(collect(lines, lambda c: c["group_id"]).values())
    compared = [cells for cells in groups if len(cells) > 1] or groups
    return [(cells, _trade_off_panel(cells, varied)) for cells in compared]


def over_floor(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw time and memory over the floor, if it was measured: one column per gradient, one point per group."""
    lines = lines_of(frame)
    floors = {(c["group_id"], c["gradient"]) for c in lines if c["contender"] == FLOOR and c["comparable"]}
    cells = [c for c in lines if (c["group_id"], c["gradient"]) in floors and c["contender"] != FLOOR]
    measures = (("time_over_floor", "time over the floor"), ("memory_over_floor", "peak tensor memory over the floor"))
    panels = [_multiples_panel(cells, key, label) for key, label in measures]
    caption = (
        "Each point is a group: the cost of a gradient as a multiple of its own floor in the same group, that is, of"
        " the bare calls of f and its vector-Jacobian product and the tensors that it cannot avoid. At 1 nothing is"
        " lost."
    )
    panels = [panel for panel in panels if panel.series]
    return FigureSpec("over-floor", "Cost over the floor", caption, where, (tuple(panels),) if panels else ())


def growth(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw time and, below, memory against each GROWING axis, for the longest series of three or more values."""
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
    rows = [
        tuple(_growth_panel(cells, axis, y, measure, varied) for axis, cells in grown)
        for y, measure in ((TIME, milliseconds), (MEMORY, mebibytes))
    ]
    caption = (
        "The cost of a gradient as one size grows. A slope of one is linear growth: ten times the size costs ten times"
        " as much."
    )
    return FigureSpec("growth", "Growth", caption, where, tuple(row for row in rows if row))


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
        " confidence interval. 0 is constant, 1 is linear, 2 is quadratic."
    )
    panels = [_powers_panel(lines) for lines in collect(exponents, lambda line: line["measure"]).values()]
    return FigureSpec("exponents", "Exponents of growth", caption, where, grid(panels))


SPREAD = 0.7
"""The fraction of the space between two axes that the gradients, side by side, occupy."""


def _powers_panel(lines: Sequence[Line]) -> Panel:
    axes = tuple(dict.fromkeys(str(line["axis"]) for line in lines))
    names = list(dict.fromkeys(line["name"] for line in lines))
    series = []
    for place, name in enumerate(names):
        own = [line for line in lines if line["name"] == name]
        shift = SPREAD * ((place + 0.5) / len(names) - 0.5)
        x = tuple(axes.index(line["axis"]) + shift for line in own)
        y, doubt = (tuple(line[key] for line in own) for key in ("exponent", "half_width"))
        style = style_of(own[0]["contender"], own[0]["gradient"])
        series.append(Series(name, name, style, x, y, joined=False, doubt=doubt))
    x = Axis("", log=False, names=axes)
    return Panel(measure_label(lines[0]["measure"]), x, Axis("exponent", log=False), tuple(series))


def _tolerance_panel(cells: Sequence[Line], varied: VariedSizes) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells if not _is_leaders_line(c)}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=lambda c: -c["rtol"])
        series += points_of(own, lambda c: (c["rtol"], c["error_true"]))
    bars = [c["error_true_bar"] for c in cells if can_be_drawn(c["error_true_bar"])]
    errors = [c["error_true"] for c in cells if c["error_true"]]
    known = max(bars, default=0.0)
    floor = (known, "the reference's own error") if errors and known > min(errors) / 10 else None
    return Panel(
        f"{title_of(cells[0], varied)}\n{cells[0]['method']}",
        TOLERANCE,
        ERROR,
        tuple(series),
        floor=floor,
        shaded=_nearer(cells),
    )


def _is_leaders_line(line: Line) -> bool:
    """Return whether the cell is another of our exact gradients, whose line would lie on LEADER's."""
    return line["contender"] == "ours" and line["name"] != LEADER and gradient_record(line["gradient"]).exact_for_method


def _nearer(cells: Sequence[Line]) -> tuple[tuple[float, float], ...]:
    """Return the intervals of rtol in which the continuous adjoint is closer to the truth than the exact gradient.

    Between two tolerances both errors are interpolated as powers of rtol, which gives the crossing.
    """
    errors = {(c["name"], c["rtol"]): c["error_true"] for c in cells if c["error_true"]}
    both = sorted(r for name, r in errors if name == "ours symplectic" and ("ours continuous", r) in errors)
    points = [(math.log(r), math.log(errors["ours continuous", r] / errors["ours symplectic", r])) for r in both]
    found: list[tuple[float, float]] = []
    for (x0, v0), (x1, v1) in pairwise(points):
        if v0 >= 0 and v1 >= 0:
            continue
        crossing = x0 + (x1 - x0) * v0 / (v0 - v1) if (v0 < 0) != (v1 < 0) else None
        low, high = (x0 if v0 < 0 else crossing), (x1 if v1 < 0 else crossing)
        assert low is not None and high is not None, "an interval with one end below zero has a crossing"
        if found and found[-1][1] == low:
            low = found.pop()[0]
        found.append((low, high))
    return tuple((math.exp(low), math.exp(high)) for low, high in found)


def _rounding_panel(cells: Sequence[Line], varied: VariedSizes) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=lambda c: c["steps"])
        series += points_of(own, lambda c: (c["steps"], c["error_discrete"]))
    half = {"float32": 2.0**-24, "float64": 2.0**-53}[cells[0]["dtype"]]
    title = f"{title_of(cells[0], varied)}\n{cells[0]['method']}"
    rounded = [c["steps"] for c in cells if c["error_discrete_oracle"] == c["dtype"]]
    note = f"From {int(min(rounded))} steps on, the oracle rounds as coarsely as the gradient." if rounded else ""
    return Panel(title, STEPS, DISCRETE, tuple(series), floor=(half, "half a unit in the last place"), note=note)


def _multiples_panel(cells: Sequence[Line], key: str, label: str) -> Panel:
    known = [c for c in cells if c[key] is not None]
    names = tuple(sorted({c["name"] for c in known}, key=display_place))
    series = []
    for place, name in enumerate(names):
        own = [c for c in known if c["name"] == name]
        style = style_of(own[0]["contender"], own[0]["gradient"])
        x, y, ids = (float(place),) * len(own), tuple(c[key] for c in own), tuple(c["cell_id"] for c in own)
        series.append(Series(name, name, style, x, y, joined=False, cells=ids))
    return Panel(
        label, Axis("", log=False, names=names), Axis("times the floor"), tuple(series), floor=(1.0, "the floor")
    )


def _growth_panel(
    cells: Sequence[Line], axis: str, y: Axis, measure: Callable[[Line], float | None], varied: VariedSizes
) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=lambda c: _number(c, axis) or 0)
        found = points_of(own, lambda c: (_number(c, axis), measure(c)))
        series += [replace(one, power=_power(one)) for one in found]
    others = {problem: names - {axis} for problem, names in varied.items()}
    return Panel(f"{title_of(cells[0], others)}\n{cells[0]['method']}", Axis(f"number of {axis}"), y, tuple(series))


def _power(series: Series) -> Exponent | None:
    """Return the exponent fitted to a series, None if it has too few points for one."""
    return fit(list(zip(series.x, series.y, strict=True))) if len(set(series.x)) >= FEWEST else None


def _precision_panel(
    cells: Sequence[Line], x: Axis, measure: Callable[[Line], float | None], varied: VariedSizes
) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=_accuracy)
        series += points_of(own, lambda c: (measure(c), c["error_true"]))
    bars = [c["error_true_bar"] for c in cells if can_be_drawn(c["error_true_bar"])]
    floor = (max(bars), "the reference's own error") if bars else None
    title = f"{title_of(cells[0], varied)}\n{cells[0]['method']}"
    return Panel(title, x, ERROR, tuple(series), floor=floor)


def _trade_off_panel(cells: Sequence[Line], varied: VariedSizes) -> Panel:
    shown = [c for c in cells if c["status"] == Status.OK and all(map(can_be_drawn, (milliseconds(c), mebibytes(c))))]
    series = [one for c in shown for one in points_of([c], lambda c: (milliseconds(c), mebibytes(c)), joined=False)]
    compared = [
        (one, c)
        for one, c in zip(series, shown, strict=True)
        if c["comparable"] and c["contender"] != FLOOR  # the floor computes no gradient
    ]
    points = [(one.x[0], one.y[0]) for one, _ in compared]
    front = tuple(points[i] for i in pareto_front(points, lambda i, j: is_faster(compared[i][1], compared[j][1])))
    if len(series) > MANY:
        series = [one if (one.x[0], one.y[0]) in front else replace(one, label="") for one in series]
    title = f"{title_of(cells[0], varied)}\n{_accuracy_words(cells[0])}"
    return Panel(title, TIME, MEMORY, tuple(series), labelled=True, front=front, note=_absences(cells, shown))


def _absences(cells: Sequence[Line], shown: Sequence[Line]) -> str:
    """Say which cells have no point and why, and which have a point but are not compared."""
    reasons = {
        c["name"]: "not measured" if c["status"] == Status.OK else str(c["status"]) for c in cells if c not in shown
    }
    reasons |= {c["name"]: "forward disagrees, not on the front" for c in shown if not c["comparable"]}
    names = {reason: [n for n, r in reasons.items() if r == reason] for reason in reasons.values()}
    return "; ".join(f"{why}: {'all' if len(n) == len(cells) else ', '.join(n)}" for why, n in names.items())


def _family(line: Line) -> tuple[object, ...]:
    """Return the key that cells share if they differ only in accuracy, contender or gradient."""
    axes = ("problem", "batch", "method", "dtype", "device", "threads", "seed")
    return (*(line[axis] for axis in axes), *sorted(line["sizes"].items()), line["steps"] is None)


def _accuracy_words(line: Line) -> str:
    if line["steps"] is not None:
        return f"{line['method']}, {int(line['steps'])} steps"
    return f"{line['method']}, rtol {line['rtol']:g}, atol {line['atol']:g}"


def _accuracy(line: Line) -> float:
    """Return a sort key, coarsest first."""
    return -line["rtol"] if line["steps"] is None else line["steps"]
