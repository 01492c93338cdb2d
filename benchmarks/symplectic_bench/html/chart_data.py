"""Figures as plain data for the script: the same panels that matplotlib draws."""

from collections.abc import Mapping
from typing import Any

from symplectic_bench.report.panels import Axis, FigureSpec, Panel, Series, Style

SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "d": "diamond-tall",
    "P": "cross",
    "X": "x",
    "*": "star",
    "H": "hexagon2",
    "h": "hexagon",
    "8": "octagon",
    "p": "pentagon",
    "1": "y-down",
    "2": "y-up",
    "3": "y-left",
    "4": "y-right",
    "+": "cross-thin",
    "x": "x-thin",
    "|": "line-ns",
    "_": "line-ew",
}
"""The names of matplotlib's markers in plotly."""

LINES_ONLY = frozenset("1234+x|_")
"""Markers without an area, which plotly draws only as outlines."""

Places = Mapping[str, int]
"""The place of each cell in the page's list of cells, by its id."""


def figure_data(figure: FigureSpec, places: Places) -> dict[str, Any]:
    """Return a figure: its title and caption, and its panels, each of which is shown alone."""
    panels = figure.panels
    return {
        "kind": "figure",
        "title": figure.title,
        "caption": figure.caption,
        "panels": [panel_data(panel, places, several_y=len({one.y for one in panels}) > 1) for panel in panels],
    }


def panel_data(panel: Panel, places: Places, several_y: bool = False) -> dict[str, Any]:
    """Return a panel. Its title, in one line, ends with its y axis if the panels of its figure have several."""
    title = ", ".join(part for part in (panel.identity, panel.y.label if several_y else "") if part)
    return {
        "title": title or panel.y.label,
        "x": _axis(panel.x),
        "y": _axis(panel.y),
        "series": [_series(one, places) for one in panel.series],
        "front": panel.front,
        "dials": [_series(one, places) for one in panel.dials],
        "floor": panel.floor,
        "shaded": panel.shaded,
        "headline": "" if panel.headline is None else str(panel.headline),
        "note": panel.note,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"label": axis.label, "log": axis.log and not axis.names, "names": axis.names}


def _series(series: Series, places: Places) -> dict[str, Any]:
    return {
        "name": series.name,
        "style": _style(series.style),
        "x": series.x,
        "y": series.y,
        "joined": series.joined,
        "doubt": series.doubt,
        "cells": [places[id] for id in series.cells],
        "power": "" if series.power is None else str(series.power),
    }


def _style(style: Style) -> dict[str, Any]:
    outlined = not style.filled or style.marker in LINES_ONLY
    symbol = SYMBOLS[style.marker] + ("-open" if outlined else "")
    return {"light": style.color, "dark": style.on_dark, "symbol": symbol, "dashed": style.dashed}
