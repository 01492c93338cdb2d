"""The history of a suite as plain data: a line for each metric over the runs, its steps, and the runs themselves."""

from collections.abc import Sequence
from typing import Any

from symplectic_bench.analysis.history import METRICS, Metric, Run, Step, steps, trend
from symplectic_bench.analysis.summary import Line
from symplectic_bench.contenders.gradient_records import GRADIENT_RECORDS
from symplectic_bench.html.chart_data import figure_data
from symplectic_bench.html.table_data import table_data
from symplectic_bench.report.numerals import MISSING, three_digits
from symplectic_bench.report.panels import Axis, FigureSpec, Panel, Series, Style
from symplectic_bench.report.typesetting import Section, Table

STEP = "a step"
STEP_STYLE = Style("#000000", "#FFFFFF", "|", filled=True, dashed=False)


def history_section(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the section of a suite's runs, oldest first."""
    found = steps(runs)
    figure = _figure(runs, found)
    parts = [figure_data(figure, {})] if figure.blocks else []
    if len(runs) > 1:
        parts.append(table_data(_steps_table(runs, found)))
    return {"id": "history", "title": "History", "parts": [*parts, table_data(_runs_table(runs))]}


def run_label(run: Run) -> str:
    """Return the run's date and commit, or its environment without a commit."""
    return f"{run.facts['last_run'][:10]} {run.facts['commit'] or run.facts['id']}"


def _figure(runs: Sequence[Run], found: Sequence[Step]) -> FigureSpec:
    series = [one for metric in METRICS for one in _series(runs, metric)]
    marks = [
        (float(place), height)
        for metric in METRICS
        for place, height in trend(runs, metric)
        if any(step.place == place and step.finding.metric in metric.counters for step in found)
    ]
    if marks:
        x, y = zip(*marks, strict=True)
        series.append(Series(STEP, STEP, STEP_STYLE, x, y, joined=False))
    caption = (
        "Each metric as a multiple of its value in the first run: from run to run the geometric mean over the cells"
        " that both measured. Times have a line for each machine. A mark is a step: a count or a peak that changed in"
        " some cell, which the table names."
    )
    x_axis = Axis("", log=False, names=tuple(map(run_label, runs)))
    panel = Panel("over the runs", x_axis, Axis("over the first run"), tuple(series))
    return FigureSpec("history", "Over commits and machines", caption, "", ((panel,),) if series else ())


def _series(runs: Sequence[Run], metric: Metric) -> list[Series]:
    """Return the metric's line, or one for each machine if it is a time."""
    place = METRICS.index(metric)
    if not metric.is_time:
        points = trend(runs, metric)
        return [_line_of(metric.name, _style(place), points)] if points else []
    found: list[Series] = []
    for machine in dict.fromkeys(run.machine for run in runs):
        places = [place for place, run in enumerate(runs) if run.machine == machine]
        points = [(places[i], value) for i, value in trend([runs[place] for place in places], metric)]
        if points:
            found.append(_line_of(f"{metric.name} on {machine}", _style(place + len(found)), points))
    return found


def _line_of(name: str, style: Style, points: Sequence[tuple[int, float]]) -> Series:
    x, y = zip(*points, strict=True)
    return Series(name, name, style, tuple(map(float, x)), y)


def _style(place: int) -> Style:
    """Return the colour and the marker at this place of the palette, again from the first beyond the last."""
    record = list(GRADIENT_RECORDS.values())[place % len(GRADIENT_RECORDS)]
    return Style(record.color, record.on_dark or record.color, record.marker, filled=True, dashed=False)


def _steps_table(runs: Sequence[Run], found: Sequence[Step]) -> Table:
    keys = ("run", "cell", "metric", "before", "now", "change")
    data: list[Line] = []
    for step in found:
        before, now = step.finding.values
        line = {"run": run_label(runs[step.place]), "cell": step.finding.cell, "metric": step.finding.metric}
        data.append(line | {"before": before, "now": now, "change": _change(step)})
    caption = (
        "Counts of calls and steps, peaks of live tensors, and outcomes that differ from the run before, beyond the"
        " tolerances of a baseline and beyond what another kind of processor may change."
    )
    section = Section("", tuple(tuple(str(line[key]) for key in keys) for line in data))
    return Table("steps", "Steps", caption, "", keys, (section,), tuple(data))


def _change(step: Step) -> str:
    before, now = step.finding.baseline, step.finding.measured
    if not (isinstance(before, int | float) and isinstance(now, int | float)) or not before:
        return MISSING
    return f"{three_digits(100 * (now / before - 1))} %"


def _runs_table(runs: Sequence[Run]) -> Table:
    keys = ("last run", "commit", "environment", "scale", "machine", "torch", "cells", "ok")
    data: list[Line] = [
        {
            "last run": run.facts["last_run"],
            "commit": run.facts["commit"] or MISSING,
            "environment": run.facts["id"],
            "scale": run.facts["scale"],
            "machine": run.machine,
            "torch": run.facts["torch"],
            "cells": len(run.rows),
            "ok": sum(row.status == "ok" for row in run.rows),
        }
        for run in reversed(runs)
    ]
    section = Section("", tuple(tuple(str(line[key]) for key in keys) for line in data))
    return Table("runs", "Runs", "Every environment that has rows, newest first.", "", keys, (section,), tuple(data))
