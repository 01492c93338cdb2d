"""Pictures of the problems' solutions, for docs/problems.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from symplectic_adjoint import odeint
from symplectic_bench.data.tables import cache_table
from symplectic_bench.problems import PROBLEMS, Problem, in_turn
from symplectic_bench.report.render import STYLE, save
from symplectic_bench.spec.cell import Size

SIZE = (4.4, 3.0)  # inches
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, distinguishable with every kind of colour vision."""


@dataclass(frozen=True)
class Portrait:
    """How a problem is shown: its sizes, the columns of the state, and their labels.

    In a "time" plot a line is a column of one sample, coloured by column; a first sample with a label has its own
    colour. In a "plane" plot columns form pairs, and a line is the path of a pair in one sample, starting at its dot,
    coloured by pair, or by sample if there is one pair and few samples. An "image" is one sample over space and time.
    """

    kind: Literal["time", "plane", "image"]
    labels: tuple[str, ...]
    columns: tuple[int, ...] = (0, 1)
    axes: tuple[str, str] = ("t", "y")
    sizes: Mapping[str, Size] = field(default_factory=dict)
    batch: int = 1
    seed: int = 0
    moments: int = 240
    first: str = ""
    """The label of the first sample, if it is unlike the others."""
    begin: float | None = None
    """The start of a logarithmic time axis; None for a linear one."""
    marks: tuple[tuple[float, float], ...] = ()
    mark: str = ""
    """The label of the marked points of a plane."""
    space: bool = False
    """Whether a plane is physical space, drawn with equal axes."""
    width: float = 1.0
    """The length of an image's interval in space."""


PORTRAITS = {
    "identity": Portrait("time", ("y",), (0,), sizes={"dim": 1, "end": 2.0}, batch=6),
    "linear": Portrait("time", ("$y_1$", "$y_2$", "$y_3$"), (0, 1, 2), sizes={"dim": 3, "end": 10.0}),
    "logistic": Portrait("time", ("y",), (0,), batch=6),
    "harmonic": Portrait("plane", (), axes=("x", "v"), sizes={"end": 10.0}),
    "kepler": Portrait(
        "plane",
        (),
        axes=("$x_1$", "$x_2$"),
        sizes={"end": 6.2},
        batch=3,
        marks=((0.0, 0.0),),
        mark="the sun",
        space=True,
    ),
    "forced": Portrait("time", ("$y_1$", "$y_2$"), seed=1),
    "mlp": Portrait("time", ("$y_1$", "$y_2$", "$y_3$"), (0, 1, 2), axes=("t", "three of eight components")),
    "convolution": Portrait("time", ("$y_1$", "$y_2$", "$y_3$"), (0, 1, 2), axes=("t", "three points of the image")),
    "irregular": Portrait("time", ("$y_1$", "$y_2$", "$y_3$"), (0, 1, 2), axes=("t", "three of six components")),
    "stack": Portrait(
        "time",
        ("$y_1$", "$y_2$", "$y_3$"),
        (0, 1, 2),
        axes=("t, of one component after the other", "y"),
        sizes={"components": 3},
    ),
    "recurrent": Portrait(
        "time",
        ("$y_1$", "$y_2$", "$y_3$"),
        (0, 1, 2),
        axes=("t, of one solve after the other", "y"),
        sizes={"components": 8},
    ),
    "regularized": Portrait(
        "time", ("$z_1$", "$z_2$", "energy e"), (0, 1, 8), axes=("t", "two of eight components, and e")
    ),
    "unlisted": Portrait("time", ("$y_1$", "$y_2$"), seed=1),
    "spiral": Portrait("plane", (), axes=("$y_1$", "$y_2$"), sizes={"end": 20.0}, moments=800),
    "van_der_pol": Portrait("plane", (), axes=("x", "v"), sizes={"end": 10.0}, batch=3),
    "outlier": Portrait("time", ("the others",), (0,), axes=("t", "x"), batch=8, first="the outlier"),
    "lotka_volterra": Portrait("plane", (), axes=("prey", "predators"), batch=3),
    "fitzhugh_nagumo": Portrait("time", ("voltage v", "recovery w"), sizes={"end": 80.0}),
    "white_dwarf": Portrait("time", ("$\\varphi$", "$\\varphi'$"), axes=("t, the radius less 0.5", "y")),
    "coupled_oscillators": Portrait(
        "time", ("$x_1$", "$x_2$"), axes=("t", "displacement"), sizes={"end": 40.0}, moments=600
    ),
    "double_pendulum": Portrait(
        "plane", (), axes=("upper angle", "lower angle"), sizes={"end": 20.0}, moments=1000, batch=2
    ),
    "lorenz": Portrait("plane", (), (0, 2), axes=("x", "z"), sizes={"end": 20.0}, moments=1500),
    "three_body": Portrait(
        "plane",
        ("mass 1.1", "mass 1.1", "mass 0.9"),
        (0, 1, 2, 3, 4, 5),
        axes=("$x_1$", "$x_2$"),
        sizes={"end": 4.0},
        space=True,
    ),
    "robertson": Portrait(
        "time", ("A", "$10^4$ B", "C"), (0, 1, 2), axes=("t", "amount"), sizes={"end": 5.0}, begin=1e-5
    ),
    "hires": Portrait(
        "time", ("$y_1$", "$y_4$", "$y_6$"), (0, 3, 5), axes=("t", "concentration"), sizes={"end": 50.0}, begin=1e-2
    ),
    "stiff_spiral": Portrait("plane", (), axes=("$y_1$", "$y_2$"), sizes={"end": 8.0}, batch=3),
    "pharmacokinetics": Portrait("time", ("C", "R", "P"), (0, 2, 3), axes=("t, in days", "amount"), moments=600),
    "memory_flow": Portrait(
        "plane",
        (),
        axes=("$x_1$", "$x_2$"),
        batch=24,
        marks=((math.sqrt(1.5), 0.0), (-math.sqrt(1.5), 0.0)),
        mark="at rest",
        space=True,
    ),
    "kdv": Portrait("image", (), axes=("x", "t"), sizes={"points": 64}, width=10.0),
    "cahn_hilliard": Portrait("image", (), axes=("x", "t"), sizes={"points": 64}),
    "allen_cahn": Portrait("image", (), axes=("x", "t"), sizes={"end": 8.0}),
    "brusselator": Portrait("time", ("u", "v"), (0, 32), axes=("t", "at one point"), sizes={"end": 20.0}),
    "brusselator_2d": Portrait("time", ("u", "v"), (27, 91), axes=("t", "at one point"), sizes={"end": 11.5}),
    "flow": Portrait("time", ("l",), (-1,), axes=("t", "l, change of log density"), sizes={"data": "wine"}, batch=16),
    "flow_exact": Portrait("time", ("l",), (-1,), axes=("t", "l, change of log density"), batch=16),
}


def draw(name: str) -> Figure:
    """Solve a problem and draw its portrait."""
    portrait = PORTRAITS[name]
    problem = build(name, portrait)
    t, ys = solve(problem, portrait)
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(portrait.axes[0])
    axes.set_ylabel(portrait.axes[1])
    for i, jump in enumerate(problem.jumps):
        axes.axvline(jump, color="#888888", linestyle=":", label="switches" if i == 0 else None)
    {"time": over_time, "plane": in_the_plane, "image": as_image}[portrait.kind](axes, portrait, t, ys)
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1 or portrait.mark:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(labels), columnspacing=1.2)
    return figure


def build(name: str, portrait: Portrait) -> Problem:
    """Build the problem at the portrait's sizes, from data in a temporary folder."""
    with TemporaryDirectory() as folder:
        if "data" in portrait.sizes:
            cache_table(str(portrait.sizes["data"]), Path(folder))
        return PROBLEMS[name].build(
            portrait.sizes, portrait.batch, "float64", seed=portrait.seed, cache_dir=Path(folder)
        )


def solve(problem: Problem, portrait: Portrait) -> tuple[Tensor, Tensor]:
    """Return times (moments,) and the states of all samples (moments, batch, dim), one component after another."""
    start, end = problem.t[[0, -1]].tolist()
    t = torch.linspace(start, end, portrait.moments, dtype=torch.float64)
    if portrait.begin is not None:
        logs = torch.linspace(math.log(portrait.begin), math.log(end), portrait.moments - 1, dtype=torch.float64)
        t = torch.cat([t[:1], logs.exp()])
    options = {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)} if problem.jumps else {}
    parts: list[Tensor] = []

    def one(part: Problem) -> Tensor:
        parts.append(odeint(part.func, part.y0, t, method="dopri5", rtol=1e-7, atol=1e-7, options=options))
        return parts[-1]

    with torch.no_grad():
        in_turn(problem, one)
    return torch.cat([t + i * (end - start) for i in range(len(parts))]), torch.cat(parts)


def over_time(axes: Axes, portrait: Portrait, t: Tensor, ys: Tensor) -> None:
    """Draw columns of the state over time."""
    if portrait.begin is not None:
        axes.set_xscale("log")
        t, ys = t[1:], ys[1:]
    samples = list(ys.unbind(1))
    if portrait.first:
        axes.plot(t, samples.pop(0)[:, portrait.columns[0]], color=COLORS[1], linewidth=1.8, label=portrait.first)
    for column, label, color in zip(portrait.columns, portrait.labels, COLORS, strict=False):
        for i, sample in enumerate(samples):
            axes.plot(t, sample[:, column], color=color, linewidth=1.4, label=label if i == 0 else None)


def in_the_plane(axes: Axes, portrait: Portrait, t: Tensor, ys: Tensor) -> None:
    """Draw pairs of columns as paths."""
    del t
    if portrait.space:
        axes.set_aspect("equal", adjustable="datalim")
    pairs = list(zip(portrait.columns[::2], portrait.columns[1::2], strict=True))
    few = ys.shape[1] <= len(COLORS)
    for i, (across, up) in enumerate(pairs):
        for j, path in enumerate(ys.unbind(1)):
            color = COLORS[i if len(pairs) > 1 else j * few]
            label = portrait.labels[i] if portrait.labels and j == 0 else None
            axes.plot(path[:, across], path[:, up], color=color, linewidth=1.1, label=label)
            begins = "start" if portrait.mark and i == j == 0 else None
            axes.plot(path[0, across], path[0, up], "o", color=color, markersize=4, linestyle="none", label=begins)
    if portrait.marks:
        star = {"marker": "*", "linestyle": "none", "markersize": 10, "color": "black"}
        axes.plot(*zip(*portrait.marks, strict=True), **star, label=portrait.mark, zorder=3)


def as_image(axes: Axes, portrait: Portrait, t: Tensor, ys: Tensor) -> None:
    """Draw the first sample's state over space and time."""
    axes.grid(False)
    extent = (0.0, portrait.width, float(t[0]), float(t[-1]))
    image = axes.imshow(ys[:, 0], cmap="viridis", origin="lower", aspect="auto", extent=extent, interpolation="none")
    axes.figure.colorbar(image, label="u")


def write_portrait(name: str, folder: Path, formats: Sequence[str] = ("svg",)) -> list[Path]:
    """Draw a problem's portrait as folder/<name>.svg and so on."""
    with matplotlib.rc_context(STYLE):
        return save(draw(name), folder / name, formats)
