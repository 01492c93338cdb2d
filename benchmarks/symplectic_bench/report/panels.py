"""What a figure is made of: plain frozen data that says what is drawn, in which colour and with which words."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from symplectic_bench.analysis.summary import Line
from symplectic_bench.spec.cell import setting

# Okabe and Ito's palette, distinguishable with every kind of colour vision. The colour and the marker belong to the
# gradient; ours are filled and joined by full lines, torchdiffeq's hollow and joined by dashes. Other contenders have
# a marker each, for any gradient, since several of them have backprop.
COLORS = {
    "symplectic": "#D55E00",
    "aca": "#0072B2",
    "baseline": "#009E73",
    "stages": "#CC79A7",
    "backprop": "#000000",
    "continuous": "#56B4E9",
    "continuous-seminorm": "#E69F00",
    "revolve": "#F0E442",
    "graphs": "#8B5A2B",
    "disk": "#7F7F7F",
    "auto": "#B22222",
    "reversible": "#4B0082",
    "mali": "#2F6B6B",
}
MARKERS = {
    "symplectic": "o",
    "aca": "s",
    "baseline": "^",
    "stages": "D",
    "backprop": "P",
    "continuous": "X",
    "continuous-seminorm": "v",
    "revolve": "*",
    "graphs": "H",
    "disk": "h",
    "auto": "8",
    "reversible": "<",
    "mali": ">",
}
CONTENDER_MARKERS = {
    "ours-compiled": ">",
    "ours-float64": "h",
    "ours-compensated": "8",
    "floor": "_",
    "paper": "p",
    "torchode": "<",
    "torchdiffeqpack": "D",
    "diffrax": "d",
}
CONTENDER_COLORS = {"ours-float64": "#7F7F7F", "ours-compensated": "#999933"}
"""Of those that differ from ours in nothing but the sums."""

UNKNOWN_COLOR, UNKNOWN_MARKER = "#999999", "*"


@dataclass(frozen=True)
class Axis:
    """Its label with the unit, and whether it is logarithmic. With names, the places 0, 1, .. are called so.

    counts: the values are 1, 2, .. up to this number, and all of them are shown, with or without points.
    """

    label: str
    log: bool = True
    names: tuple[str, ...] = ()
    counts: int | None = None


@dataclass(frozen=True)
class Style:
    """How a contender's gradient looks, in every figure."""

    color: str
    marker: str
    filled: bool
    dashed: bool


@dataclass(frozen=True)
class Series:
    """Points (x, y), in order, of one contender's gradient. label is its name where there is little room.

    doubt: half the height of each point's interval.
    """

    name: str
    label: str
    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    joined: bool = True
    doubt: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes. front: the corners of a Pareto front; floor: (height, words) of a horizontal line; shaded:
    stretches of x where the continuous adjoint is nearer the truth.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    labelled: bool = False
    front: tuple[tuple[float, float], ...] = ()
    floor: tuple[float, str] | None = None
    shaded: tuple[tuple[float, float], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class FigureSpec:
    """Panels row by row, one legend for all. The caption stands beside the figure, not in it."""

    name: str
    title: str
    caption: str
    where: str  # a sentence on what it was measured, which ends the caption
    rows: tuple[tuple[Panel, ...], ...]


TIME = Axis("time, forward and backward (ms)")
MEMORY = Axis("peak of tensors (MiB)")
ERROR = Axis("true error of the gradient")
TOLERANCE = Axis("rtol")
STEPS = Axis("number of steps")
DISCRETE = Axis("error against the steps taken")


VariedSizes = dict[str, set[str]]  # problem -> its sizes that have several values in a figure


def style_of(contender: str, gradient: str) -> Style:
    own = contender.split("-")[0] == "ours"
    kind, _ = setting(gradient)
    marker = CONTENDER_MARKERS.get(contender) or MARKERS.get(kind, UNKNOWN_MARKER)
    color = CONTENDER_COLORS.get(contender) or COLORS.get(kind, UNKNOWN_COLOR)
    return Style(color, marker, own, not own)


def milliseconds(line: Line) -> float | None:
    return None if line["total_s"] is None else line["total_s"] * 1e3


def mebibytes(line: Line) -> float | None:
    return None if line["peak_tensor_bytes"] is None else line["peak_tensor_bytes"] / 2**20


def varied_sizes(lines: Iterable[Line]) -> VariedSizes:
    varied: VariedSizes = {}
    for problem, cells in collect(lines, lambda line: line["problem"]).items():
        names = {name for line in cells for name in line["sizes"]}
        varied[str(problem)] = {n for n in names if len({line["sizes"].get(n) for line in cells}) > 1}
    return varied


def points_of(cell: Line, points: Iterable[tuple[float | None, float | None]], joined: bool = True) -> list[Series]:
    """The points that a logarithmic axis can show, as one series; none where there are none."""
    known = [(x, y) for x, y in points if x and y and math.isfinite(x) and math.isfinite(y)]
    if not known:
        return []
    x, y = zip(*known, strict=True)
    kind, number = setting(cell["gradient"])
    name = f"{cell['contender']} {kind}-N" if number else cell["name"]
    return [
        Series(
            name,
            cell["name"].removeprefix("ours "),
            style_of(cell["contender"], cell["gradient"]),
            tuple(x),
            tuple(y),
            joined,
        )
    ]


def grid(panels: Sequence[Panel]) -> tuple[tuple[Panel, ...], ...]:
    """Rows of at most three, as even as they can be: 4 panels are 2 and 2, 5 are 3 and 2."""
    if not panels:
        return ()
    rows = math.ceil(len(panels) / 3)
    wide = math.ceil(len(panels) / rows)
    return tuple(tuple(panels[i : i + wide]) for i in range(0, len(panels), wide))


def collect(lines: Iterable[Line], key: Callable[[Line], object]) -> dict[object, list[Line]]:
    groups: dict[object, list[Line]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return groups


def title_of(line: Line, varied: VariedSizes) -> str:
    """The problem, with the sizes that tell it from others of its kind, and what all its cells share."""
    sizes = ", ".join(f"{name}={line['sizes'][name]}" for name in line["sizes"] if name in varied[line["problem"]])
    problem = f"{line['problem']} ({sizes})" if sizes else line["problem"]
    device = "" if line["device"] == "cpu" else f" on {line['device']}"
    return f"{problem}, batch {int(line['batch'])}, {line['dtype']}{device}"
