"""Figures of trained networks: learning curves, and the agreement of the gradients' losses."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from symplectic_bench.analysis.summary import LEADER, Line, display_place, lines_of, losses_off
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.report.headlines import Bound
from symplectic_bench.report.panels import Axis, FigureSpec, Panel, Series, apart, collect, style_of
from symplectic_bench.report.training_tables import setting_labels
from symplectic_bench.spec.cell import FIRST_ITERATIONS, ITERATIONS

POINTS = 25
"""The number of markers on a curve."""


def iterations_of(lines: Sequence[Line], most: int | None = None) -> Axis:
    """Return the axis of the lines' iterations, or of the first `most` of them."""
    number = max(len(line["losses"]) for line in lines)
    return Axis("iteration", log=False, counts=number if most is None else min(number, most))


def training_figures(frame: pd.DataFrame, where: str, name: str = "") -> list[FigureSpec]:
    """Return the figures that have something to show, with `name` as the prefix of their names."""
    lines = [line for line in lines_of(frame) if line["losses"]]
    figures = [curves(lines, where), agreement(lines, where), calls(lines, where)]
    return [replace(one, name=f"{name}-{one.name}" if name else one.name) for one in figures if one.blocks]


def curves(lines: Sequence[Line], where: str) -> FigureSpec:
    """Draw the loss against iterations for the longest trainings: one panel per setting, one line per seed."""
    panels = []
    for label, cells in _by_setting(lines).items():
        long = _longest(cells)
        logarithmic = min(min(c["losses"]) for c in long) > 0 and _falls_far(long)
        series = [_curve(c, _smoothed(c["losses"])) for c in _ordered(long)]
        panels.append(Panel(label, iterations_of(long), Axis("loss", log=logarithmic), tuple(series)))
    caption = (
        "The loss of the training batches, as a running mean over a twentieth of the iterations; one line per seed. If"
        " gradients agree, their lines coincide, with symplectic's on top."
    )
    return FigureSpec("curves", "Learning curves", caption, where, apart(panels))


def _falls_far(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line["losses"]]
    return max(values) > 30 * min(values)


def _smoothed(values: Sequence[float]) -> list[float]:
    reach = max(1, len(values) // 20)
    return [sum(some) / len(some) for some in (values[max(0, i - reach + 1) : i + 1] for i in range(len(values)))]


def agreement(lines: Sequence[Line], where: str) -> FigureSpec:
    """Draw the relative difference of each gradient's losses from symplectic's, over the first iterations."""
    panels = []
    for label, cells in _by_setting(lines).items():
        leader = next((c for c in cells if c["name"] == LEADER), None)
        if leader is None:
            continue
        series = []
        for c in _ordered([c for c in cells if c is not leader and c["seed"] == leader["seed"]]):
            off = losses_off(c["losses"], leader["losses"])
            points = [(i, value) for i, value in enumerate(off, start=1) if value > 0]
            if points:
                x, y = zip(*points, strict=True)
                style = style_of(c["contender"], c["gradient"])
                series.append(Series(c["name"], c["name"], style, x, y, joined=False))  # a gap may be a zero
        rounding = {"float32": 2.0**-24, "float64": 2.0**-53}[cells[0]["dtype"]]
        floor = (rounding, "half a unit in the last place")
        if series:
            x_axis = iterations_of(cells, FIRST_ITERATIONS)
            y_axis, headline = Axis("loss, relative difference"), _largest_difference(cells, leader)
            panels.append(Panel(label, x_axis, y_axis, tuple(series), floor=floor, headline=headline))
    caption = (
        f"The relative difference of the losses of the first {FIRST_ITERATIONS} iterations from those with symplectic,"
        " from the same weights with the same batches. A missing point means that the two losses are equal bit for"
        " bit. mali, reversible and other libraries take other steps, so they differentiate other numbers."
    )
    return FigureSpec("agreement", "Losses side by side", caption, where, apart(panels))


def _largest_difference(cells: Sequence[Line], leader: Line) -> Bound | None:
    """Return the largest difference over our other gradients that are exact for the same steps, None if it is zero."""
    records = {c["gradient"]: gradient_record(c["gradient"]) for c in cells if c["contender"] == "ours"}
    exact = {name for name, record in records.items() if record.exact_for_method and record.steps == "method"}
    ours = [c for c in cells if c["contender"] == "ours" and c["gradient"] in exact]
    same = [c for c in ours if c is not leader and c["seed"] == leader["seed"]]
    largest = max((off for c in same for off in losses_off(c["losses"], leader["losses"])), default=0.0)
    return Bound(largest, "exact gradients: losses within {} of symplectic's") if largest else None


def calls(lines: Sequence[Line], where: str) -> FigureSpec:
    """Draw f calls against iterations, for settings in which they grow by half or more in training."""
    panels = []
    for label, cells in _by_setting(lines).items():
        long = [c for c in _longest(cells) if c["f_calls_samples"]]
        if not any(max(c["f_calls_samples"]) >= 1.5 * c["f_calls_samples"][0] for c in long):
            continue
        series = [_curve(c, c["f_calls_samples"]) for c in _ordered(long)]
        panels.append(Panel(label, iterations_of(long), Axis("f calls"), tuple(series), headline=_increase(long)))
    caption = (
        "Calls of f in an iteration, forward and backward, as the network learns a field that is harder to solve. "
        "Settings in which they grow by less than half have no panel."
    )
    return FigureSpec("calls", "Calls during training", caption, where, apart(panels))


def _increase(cells: Sequence[Line]) -> Bound | None:
    """Return the most calls of LEADER, over all seeds, as a multiple of the first iteration's, None without LEADER."""
    own = [c["f_calls_samples"] for c in cells if c["name"] == LEADER]
    words = "symplectic: up to {} times the calls of the first iteration"
    return Bound(max(max(samples) / samples[0] for samples in own), words) if own else None


def _curve(line: Line, values: Sequence[float]) -> Series:
    """Return the line's values as a series with about POINTS points, including the last."""
    stride = max(1, len(values) // POINTS)
    places = sorted({*range(0, len(values), stride), len(values) - 1})
    style = style_of(line["contender"], line["gradient"])
    return Series(line["name"], line["name"], style, tuple(i + 1 for i in places), tuple(values[i] for i in places))


def _by_setting(lines: Sequence[Line]) -> dict[str, list[Line]]:
    labels = setting_labels(lines)
    return {labels[str(id)]: cells for id, cells in collect(lines, lambda line: line["setting_id"]).items()}


def _longest(cells: Sequence[Line]) -> list[Line]:
    """Return the cells with the most iterations to do, however many they completed."""
    wanted = max(cell["sizes"][ITERATIONS] for cell in cells)
    return [cell for cell in cells if cell["sizes"][ITERATIONS] == wanted]


def _ordered(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (display_place(line["name"]), line["seed"]))
