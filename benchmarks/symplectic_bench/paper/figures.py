"""The figures that only the paper's experiments use."""

from collections.abc import Callable, Sequence

import pandas as pd

from symplectic_bench.analysis.summary import LEADER, Line, display_place, lines_of
from symplectic_bench.report.panels import (
    ERROR,
    MEMORY,
    TIME,
    TOLERANCE,
    Axis,
    FigureSpec,
    Panel,
    Series,
    apart,
    collect,
    mebibytes,
    milliseconds,
    points_of,
    style_of,
)
from symplectic_bench.spec.cell import setting
from symplectic_bench.spec.status import Status

Measured = Callable[[Line], float | None]


def _measured(frame: pd.DataFrame) -> list[Line]:
    return [line for line in lines_of(frame) if line["status"] == Status.OK]


def _by_name(lines: Sequence[Line]) -> dict[str, list[Line]]:
    return {name: [c for c in lines if c["name"] == name] for name in _names(lines)}


def _names(lines: Sequence[Line]) -> list[str]:
    return sorted({line["name"] for line in lines}, key=display_place)


def tolerances(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw error, steps, time and memory against rtol, a block of four panels per problem."""
    problems = collect(_measured(frame), lambda line: line["problem"])
    measures: tuple[tuple[Axis, Measured], ...] = (
        (ERROR, lambda line: line["error_true"]),
        (Axis("steps"), lambda line: line["steps_backward"] or line["steps_accepted"]),
        (TIME, milliseconds),
        (MEMORY, mebibytes),
    )
    blocks = tuple(
        tuple(_over_rtol(str(problem), cells, axis, measure) for axis, measure in measures)
        for problem, cells in problems.items()
    )
    caption = (
        "True error of the gradient, steps, time and memory against the relative tolerance. Steps are those of the"
        " forward pass, which the exact gradients retrace, or, for the continuous adjoint, of its second solve, N'."
        " Where lines coincide, as errors and steps of the exact gradients do, symplectic's is on top."
    )
    return FigureSpec("tolerances", "Tolerances", caption, where, blocks)


def _over_rtol(problem: str, lines: Sequence[Line], y: Axis, measure: Measured) -> Panel:
    series = []
    for own in _by_name(lines).values():
        ordered = sorted(own, key=lambda c: c["rtol"])
        series += points_of(ordered, lambda c: (c["rtol"], measure(c)))
    return Panel(problem, TOLERANCE, y, tuple(series))


def budgets(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw f calls, memory and time of revolve against the states kept, and other gradients as single points."""
    lines = _measured(frame)
    measures: tuple[tuple[Axis, Measured], ...] = (
        (Axis("f calls, forward and backward"), lambda line: line["f_calls"]),
        (MEMORY, mebibytes),
        (TIME, milliseconds),
    )
    panels = [_over_budget(lines, axis, measure) for axis, measure in measures]
    caption = (
        "The cost of revolve with c states kept. Points: the gradients that keep every step (symplectic), every stage"
        " or every graph (backprop), each at the number of states or graphs that it keeps."
    )
    return FigureSpec("budget", "Checkpoints and recomputation", caption, where, (tuple(panels),) if lines else ())


def _over_budget(lines: Sequence[Line], y: Axis, measure: Measured) -> Panel:
    revolve = [c for c in lines if setting(c["gradient"])[1]]
    ordered = sorted(revolve, key=lambda c: setting(c["gradient"])[1])
    series: list[Series] = []
    if ordered:
        series += points_of(ordered, lambda c: (setting(c["gradient"])[1], measure(c)))
    for c in lines:
        if c not in revolve:
            kept = c["steps_accepted"] * (1 if c["gradient"] == "symplectic" else c["stages"])
            series += points_of([c], lambda c, kept=kept: (kept, measure(c)), joined=False)
    return Panel("", Axis("states or graphs kept"), y, tuple(series))


def stages(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw memory against the uses of f in a step."""
    lines = [line for line in _measured(frame) if line["peak_tensor_bytes"]]
    series = []
    for name, own in _by_name(lines).items():
        ordered = sorted(own, key=lambda c: c["stages"])
        style = style_of(ordered[0]["contender"], ordered[0]["gradient"])
        x, y = tuple(float(c["stages"]) for c in ordered), tuple(mebibytes(c) or 0.0 for c in ordered)
        series.append(Series(name, name, style, x, y))
    caption = (
        "Peak tensor memory of an iteration against the uses s of f in a step: methods of order 2, 3, 5 and 8 at the"
        " same tolerance, so a lower order takes more steps."
    )
    panel = Panel("", Axis("uses of f per step, s", log=False), MEMORY, tuple(series))
    return FigureSpec("stages", "Memory against the uses of f", caption, where, ((panel,),) if series else ())


def against_symplectic(frame: pd.DataFrame, where: str) -> FigureSpec:
    """Draw time and memory of an iteration as multiples of symplectic's, one point per setting."""
    lines = _measured(frame)
    measures = (("total_s", "time of an iteration"), ("peak_tensor_bytes", "peak tensor memory"))
    panels = [panel for key, label in measures if (panel := _multiples(lines, key, label)).series]
    caption = "Each point is a data set: the cost of an iteration as a multiple of its cost with symplectic."
    return FigureSpec("against-symplectic", "Iterations relative to symplectic's", caption, where, apart(panels))


def _multiples(lines: Sequence[Line], key: str, label: str) -> Panel:
    groups = collect(lines, lambda line: line["group_id"])
    units = {g: next((c[key] for c in cells if c["name"] == LEADER), None) for g, cells in groups.items()}
    names = [name for name in _names(lines) if name != LEADER]
    series = []
    for place, name in enumerate(names):
        cells = [(g, c) for g, own in groups.items() for c in own if c["name"] == name and c[key] and units[g]]
        if cells:
            first = cells[0][1]
            y = tuple(c[key] / units[g] for g, c in cells)
            style = style_of(first["contender"], first["gradient"])
            series.append(Series(name, name, style, (float(place),) * len(y), y, joined=False))
    x = Axis("", log=False, names=tuple(names))
    return Panel(label, x, Axis("times symplectic's"), tuple(series), floor=(1.0, "symplectic"))
