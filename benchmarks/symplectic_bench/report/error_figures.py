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
    FigureSpec,
    Panel,
    VariedSizes,
    apart,
    can_be_drawn,
    collect,
    family_of,
    points_of,
    setting_of,
    short_name,
    varied_sizes,
)
from symplectic_bench.spec.status import Status

CONTINUOUS = "ours continuous"


def true_errors(frame: pd.DataFrame, where: str) -> list[FigureSpec]:
    """Draw true error against tolerance: one panel per problem and method.

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
    """Draw discrete error against steps: a panel per problem, method and dtype."""
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
    families = collect(lines, family_of).values()
    return apart(panel(cells, varied) for cells in families if fewest <= len({c[axis] for c in cells}) <= most)


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
        short_name(cells[0]["problem"], varied),
        TOLERANCE,
        ERROR,
        tuple(series),
        floor=floor,
        shaded=_nearer(cells),
        setting=setting_of(cells[0], varied, cells[0]["method"]),
        headline=_closer(cells),
    )


def _closer(cells: Sequence[Line]) -> Share | None:
    """Return at how many tolerances LEADER is closer to the truth than the continuous adjoint.

    None if the reference's own error leaves one of them undecided, or if fewer than two can be compared.
    """
    errors = {(c["name"], c["rtol"]): (c["error_true"], c["error_true_bar"] or 0.0) for c in cells if c["error_true"]}
    both = [(errors[LEADER, r], errors[CONTINUOUS, r]) for n, r in errors if n == LEADER and (CONTINUOUS, r) in errors]
    if len(both) < 2 or any(abs(own - its) <= bar + other for (own, bar), (its, other) in both):
        return None
    closer = sum(own < its for (own, _), (its, _) in both)
    return Share(closer, len(both), "exact gradients closer than continuous at {} tolerances")


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
