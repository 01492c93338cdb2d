"""The figures of suites that measure only errors."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pandas as pd

from symplectic_bench.analysis.summary import LAST_PLACE, LEADER, Line, display_place, lines_of
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.report.headlines import Bound, Share
from symplectic_bench.report.panels import (
    DISCRETE,
    ERROR,
    STEPS,
    TOLERANCE,
    Axis,
    FigureSpec,
    Panel,
    Series,
    Style,
    VariedSizes,
    apart,
    can_be_drawn,
    collect,
    family_of,
    points_of,
    setting_of,
    short_name,
    style_of,
    varied_sizes,
)
from symplectic_bench.spec.status import Status

CONTINUOUS = "ours continuous"
REFERENCE = Style("#888888", "#AAAAAA", "|", filled=True, dashed=False, size=9)


def true_errors(frame: pd.DataFrame, where: str) -> list[FigureSpec]:
    """Draw true error against tolerance: one panel per problem and method.

    If some have three tolerances or more, the others are drawn as dots in a second figure.
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
    return [FigureSpec("true-errors", title, caption, where, ladders), _others(frame, where)]


def rounding(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw discrete error against steps: a panel per problem, method and dtype."""
    caption = (
        "The error of a gradient relative to that of the steps taken, which are replayed in float64 for float32 and,"
        " if the problem is small enough, in fifty digits for float64. The dotted line is half a unit in the last"
        " place."
    )
    return FigureSpec("rounding", "Rounding", caption, where, _panels_over(frame, "steps", _rounding_panel))


def _others(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw the true errors of families with one or two tolerances: a panel per tolerance, a row per family."""
    caption = (
        "The error of a gradient relative to that of the continuous problem, in rows: problem and method, and what else"
        " tells a row from the others. The exact gradients of one solve share a dot, symplectic's; a gradient that did"
        " not finish has none. A grey line, if there is one, is the reference's own error. The titles count the solves"
        " that both gradients finished and in which the reference tells which of the two is closer."
    )
    lines = _measured(frame, "rtol")
    varied = varied_sizes(lines)
    every = collect(lines, family_of).values()
    families = [cells for cells in every if len({c["rtol"] for c in cells}) <= 2]
    tolerances = sorted({c["rtol"] for cells in families for c in cells}, reverse=True)
    panels = tuple(_dots(families, rtol, varied) for rtol in tolerances)
    blocks = (panels,) if panels else ()
    return FigureSpec("true-errors-others", "True error of the gradient, other problems", caption, where, blocks)


def _dots(families: Sequence[Sequence[Line]], rtol: float, varied: VariedSizes) -> Panel:
    """Return the panel of a tolerance; its first row, which is the highest position, is the first family."""
    settings = [setting_of(cells[0], varied, cells[0]["method"]).split(", ") for cells in families]
    shared = [part for part in settings[0] if all(part in parts for parts in settings)]
    names = [
        ", ".join([short_name(cells[0]["problem"], varied), *(part for part in parts if part not in shared)])
        for cells, parts in zip(families, settings, strict=True)
    ]
    own = [[c for c in cells if c["rtol"] == rtol and can_be_drawn(c["error_true"])] for cells in reversed(families)]
    dots = [(float(place), c) for place, cells in enumerate(own) for c in cells if not _is_leaders_line(c)]
    series = []
    for name in sorted({c["name"] for _, c in dots}, key=display_place):
        places, cells = zip(*((place, c) for place, c in dots if c["name"] == name), strict=True)
        style, x = style_of(cells[0]["contender"], cells[0]["gradient"]), tuple(c["error_true"] for c in cells)
        series.append(Series(name, name, style, x, places, joined=False, cells=tuple(c["cell_id"] for c in cells)))
    floors = [(bar, float(place)) for place, cells in enumerate(own) for bar in [_visible_bar(cells)] if bar]
    if floors:
        bars, places = zip(*floors, strict=True)
        series.append(Series("the reference's own error", "", REFERENCE, bars, places, joined=False))
    pairs = [pair for cells in own for pair in _compared(cells).values() if pair is not None]
    closer = "exact gradients closer than continuous in {} solves"
    return Panel(
        f"rtol {rtol:g}",
        ERROR,
        Axis("", log=False, names=tuple(reversed(names))),
        tuple(series),
        setting=", ".join(shared),
        headline=Share(sum(pairs), len(pairs), closer) if pairs else None,
    )


def _measured(frame: pd.DataFrame, axis: str) -> list[Line]:
    return [line for line in lines_of(frame) if line["status"] == Status.OK and line[axis] is not None]


def _panels_over(
    frame: pd.DataFrame, axis: str, panel: Callable[[Sequence[Line], VariedSizes], Panel], fewest: int = 2
) -> tuple[tuple[Panel, ...], ...]:
    """Return a panel for each family of cells with fewest or more values of the axis, "rtol" or "steps"."""
    lines = _measured(frame, axis)
    varied = varied_sizes(lines)
    families = collect(lines, family_of).values()
    return apart(panel(cells, varied) for cells in families if len({c[axis] for c in cells}) >= fewest)


def _tolerance_panel(cells: Sequence[Line], varied: VariedSizes) -> Panel:
    series = []
    for name in sorted({c["name"] for c in cells if not _is_leaders_line(c)}, key=display_place):
        own = sorted((c for c in cells if c["name"] == name), key=lambda c: -c["rtol"])
        series += points_of(own, lambda c: (c["rtol"], c["error_true"]))
    bar = _visible_bar(cells)
    return Panel(
        short_name(cells[0]["problem"], varied),
        TOLERANCE,
        ERROR,
        tuple(series),
        floor=(bar, "the reference's own error") if bar else None,
        shaded=_nearer(cells),
        setting=setting_of(cells[0], varied, cells[0]["method"]),
        headline=_closer(cells),
    )


def _visible_bar(cells: Sequence[Line]) -> float | None:
    """Return the reference's own error, None if it is far below every error that is drawn."""
    bar = max((c["error_true_bar"] for c in cells if can_be_drawn(c["error_true_bar"])), default=0.0)
    errors = [c["error_true"] for c in cells if c["error_true"]]
    return bar if errors and bar > min(errors) / 10 else None


def _closer(cells: Sequence[Line]) -> Share | None:
    """Return at how many tolerances LEADER is closer to the truth than the continuous adjoint.

    None if the reference's own error leaves one of them undecided, or if fewer than two can be compared.
    """
    closer = list(_compared(cells).values())
    if len(closer) < 2 or None in closer:
        return None
    return Share(closer.count(True), len(closer), "exact gradients closer than continuous at {} tolerances")


def _compared(cells: Sequence[Line]) -> dict[float, bool | None]:
    """Return, at each tolerance with both, whether LEADER is closer to the truth than the continuous adjoint.

    None where the reference's own error leaves it undecided.
    """
    errors = {(c["name"], c["rtol"]): (c["error_true"], c["error_true_bar"] or 0.0) for c in cells if c["error_true"]}
    found: dict[float, bool | None] = {}
    for name, rtol in errors:
        if name == LEADER and (CONTINUOUS, rtol) in errors:
            (own, bar), (its, other) = errors[name, rtol], errors[CONTINUOUS, rtol]
            found[rtol] = None if abs(own - its) <= bar + other else own < its
    return found


def _is_leaders_line(line: Line) -> bool:
    """Return whether the cell is another of our exact gradients, whose line would lie on LEADER's."""
    return line["contender"] == "ours" and line["name"] != LEADER and gradient_record(line["gradient"]).exact_for_method


def _nearer(cells: Sequence[Line]) -> tuple[tuple[float, float], ...]:
    """Return the intervals of rtol in which the continuous adjoint is closer to the truth than the exact gradient.

    Between two tolerances both errors are interpolated as powers of rtol, which gives the crossing.
    """
    errors = {(c["name"], c["rtol"]): c["error_true"] for c in cells if c["error_true"]}
    both = sorted(r for name, r in errors if name == LEADER and (CONTINUOUS, r) in errors)
    points = [(math.log(r), math.log(errors[CONTINUOUS, r] / errors[LEADER, r])) for r in both]
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
    title, setting = short_name(cells[0]["problem"], varied), setting_of(cells[0], varied, cells[0]["method"])
    rounded = [c["steps"] for c in cells if c["error_discrete_oracle"] == c["dtype"]]
    note = f"From {int(min(rounded))} steps on, the oracle rounds as coarsely as the gradient." if rounded else ""
    words = {"note": note, "setting": setting, "headline": _largest(cells)}
    return Panel(title, STEPS, DISCRETE, tuple(series), floor=(half, "half a unit in the last place"), **words)


def _largest(cells: Sequence[Line]) -> Bound | None:
    """Return LEADER's largest error, None unless it was measured at all steps with an oracle of more digits."""
    own = [c for c in cells if c["name"] == LEADER]
    if not own or any(c["error_discrete"] is None or c["error_discrete_oracle"] == c["dtype"] for c in own):
        return None
    largest = max(c["error_discrete"] for c in own) / LAST_PLACE[cells[0]["dtype"]]
    return Bound(largest, "symplectic: at most {} units in the last place") if largest else None
