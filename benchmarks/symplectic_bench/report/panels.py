"""The parts of a figure as plain frozen data: what is drawn, its colours and its labels."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

from symplectic_bench.analysis.power_law import Exponent
from symplectic_bench.analysis.summary import Line
from symplectic_bench.contenders.contender_records import contender_record
from symplectic_bench.contenders.gradient_records import UNKNOWN_COLOR, gradient_record, series_name
from symplectic_bench.report.headlines import Headline, common_headline
from symplectic_bench.spec.cell import setting


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit, and whether it is logarithmic.

    names: the labels of the positions 0, 1, .. of a categorical axis.
    counts: the values are 1, 2, .. up to this number, and all of them are shown, with or without points.
    """

    label: str
    log: bool = True
    names: tuple[str, ...] = ()
    counts: int | None = None


@dataclass(frozen=True)
class Style:
    """The appearance of a contender's gradient, the same in every figure.

    on_dark: its color on a dark background. size: the marker's, in points.
    """

    color: str
    on_dark: str
    marker: str
    filled: bool
    dashed: bool
    size: float = 6


@dataclass(frozen=True)
class Series:
    """Points (x, y), in order, of one contender's gradient.

    label is a shorter name, shown next to points. doubt: half the height of each point's confidence interval. cells:
    the id of each point's cell, where a point is one cell. power: the exponent of growth fitted to the points, if any.
    """

    name: str
    label: str
    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    joined: bool = True
    doubt: tuple[float, ...] = ()
    cells: tuple[str, ...] = ()
    power: Exponent | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    title is short; setting has the parameters, which stand below it. headline: what the points show, in place of the
    title, if anything follows from them. front: the corners of a Pareto front. dials: lines through the points of
    gradients that differ only in the number of a dial. floor: (height, label) of a horizontal line. shaded: intervals
    of x in which the continuous adjoint is closer to the truth.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    labelled: bool = False
    front: tuple[tuple[float, float], ...] = ()
    dials: tuple[Series, ...] = ()
    floor: tuple[float, str] | None = None
    shaded: tuple[tuple[float, float], ...] = ()
    note: str = ""
    setting: str = ""
    headline: Headline | None = None

    @property
    def identity(self) -> str:
        """The title and the parameters in one line, which differ from those of the figure's other panels."""
        return ", ".join(part for part in (self.title, self.setting) if part)


@dataclass(frozen=True)
class FigureSpec:
    """Blocks of panels, with one legend for all. The caption goes next to the figure, not into it.

    The panels of a block have the same subject and stay together; most blocks are a single panel. title names what is
    drawn; what is seen is in the panels' headlines.
    """

    name: str
    title: str
    caption: str
    where: str  # a sentence that names the machine and ends the caption
    blocks: tuple[tuple[Panel, ...], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels of all blocks."""
        return tuple(panel for block in self.blocks for panel in block)

    @property
    def heading(self) -> str:
        """The headline that the panels share, or the title if most of them have none."""
        return common_headline(panel.headline for panel in self.panels) or self.title

    @property
    def rows(self) -> tuple[tuple[Panel, ...], ...]:
        """The panels row by row: blocks of several panels one below the other, single panels in a grid."""
        if all(len(block) == 1 for block in self.blocks):
            return grid(self.panels)
        return tuple(row for block in self.blocks for row in grid(block))


TIME = Axis("time, forward and backward (ms)")
MEMORY = Axis("peak tensor memory (MiB)")
ERROR = Axis("true error of the gradient")
TOLERANCE = Axis("rtol")
STEPS = Axis("number of steps")
DISCRETE = Axis("error against the steps taken")


VariedSizes = dict[str, set[str]]  # problem -> its sizes that have several values in a figure


def style_of(contender: str, gradient: str) -> Style:
    """Return the appearance of a contender's gradient, from the records of both."""
    own, of_gradient = contender_record(contender), gradient_record(gradient)
    colors = own if own.color else of_gradient
    color, marker = colors.color or UNKNOWN_COLOR, own.marker or of_gradient.marker
    return Style(color, colors.on_dark or color, marker, own.ours, not own.ours)


def milliseconds(line: Line) -> float | None:
    """Return the cell's time, forward and backward, in milliseconds."""
    return None if line["total_s"] is None else line["total_s"] * 1e3


def mebibytes(line: Line) -> float | None:
    """Return the cell's peak tensor memory in mebibytes."""
    return None if line["peak_tensor_bytes"] is None else line["peak_tensor_bytes"] / 2**20


def varied_sizes(lines: Iterable[Line]) -> VariedSizes:
    """Return, for each problem, the sizes that differ among its lines."""
    varied: VariedSizes = {}
    for problem, cells in collect(lines, lambda line: line["problem"]).items():
        names = {name for line in cells for name in line["sizes"]}
        varied[str(problem)] = {n for n in names if len({line["sizes"].get(n) for line in cells}) > 1}
    return varied


def can_be_drawn(value: float | None) -> TypeGuard[float]:
    """Return whether a logarithmic axis can show the value, with room around it."""
    return value is not None and 1e-200 < value < 1e200


Point = tuple[float | None, float | None]


def points_of(cells: Sequence[Line], point: Callable[[Line], Point], joined: bool = True) -> list[Series]:
    """Return a list with one series, the points of a gradient's cells; empty if a logarithmic axis can show none."""
    points = [(*point(cell), cell["cell_id"]) for cell in cells]
    known = [(x, y, id) for x, y, id in points if can_be_drawn(x) and can_be_drawn(y)]
    if not known:
        return []
    x, y, ids = zip(*known, strict=True)
    contender, gradient = cells[0]["contender"], cells[0]["gradient"]
    name, label = f"{contender} {series_name(gradient)}", _short_label(cells[0])
    return [Series(name, label, style_of(contender, gradient), x, y, joined, cells=ids)]


def _short_label(cell: Line) -> str:
    """Return the name for a point: that of the gradient if it is ours, and a budget in MiB."""
    number = setting(cell["gradient"])[1]
    if number and gradient_record(cell["gradient"]).is_budget:
        return f"{cell['name'].removeprefix('ours ').rpartition('-')[0]} {number / 1024:.3g} MiB"
    return cell["name"].removeprefix("ours ")


def apart(panels: Iterable[Panel]) -> tuple[tuple[Panel, ...], ...]:
    """Return blocks of one panel each."""
    return tuple((panel,) for panel in panels)


def grid(panels: Sequence[Panel]) -> tuple[tuple[Panel, ...], ...]:
    """Arrange panels in rows of at most three, as equal as possible: 4 panels are 2 and 2, 5 are 3 and 2."""
    if not panels:
        return ()
    rows = math.ceil(len(panels) / 3)
    wide = math.ceil(len(panels) / rows)
    return tuple(tuple(panels[i : i + wide]) for i in range(0, len(panels), wide))


T = TypeVar("T")


def collect(lines: Iterable[T], key: Callable[[T], object]) -> dict[object, list[T]]:
    """Group lines by key, in order of first appearance."""
    groups: dict[object, list[T]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return groups


def family_of(line: Line) -> tuple[object, ...]:
    """Return the key that cells share if they differ only in accuracy, contender or gradient."""
    axes = ("problem", "batch", "method", "dtype", "device", "threads", "seed")
    return (*(line[axis] for axis in axes), *sorted(line["sizes"].items()), line["steps"] is None)


def setting_of(line: Line, varied: VariedSizes, *more: str) -> str:
    """Return the parameters of a panel: the problem's varied sizes, batch, dtype and device, and more after these."""
    sizes = [f"{name}={line['sizes'][name]}" for name in line["sizes"] if name in varied[line["problem"]]]
    device = "" if line["device"] == "cpu" else f" on {line['device']}"
    return ", ".join([*sizes, f"batch {int(line['batch'])}", f"{line['dtype']}{device}", *more])


def short_name(problem: str, others: Iterable[str]) -> str:
    """Return the name of a problem, which is a panel's title.

    Of a user's MODULE:FACTORY it is the second part, if that tells it from the others.
    """
    short = problem.rpartition(":")[2]
    return problem if any(other != problem and other.rpartition(":")[2] == short for other in others) else short
