"""One record per gradient: its display order, colour, marker and cost formulas.

Standard library only, because tables and figures look gradients up here and must not import torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from symplectic_bench.spec.cell import setting

UNKNOWN_COLOR, UNKNOWN_MARKER = "#999999", "*"


@dataclass(frozen=True)
class Symbols:
    """The symbols of the cost formulas, after Matsubara et al. 2021, Table 1.

    N: accepted steps, of s stages each, over all M components. In bytes, D: one state; A: the graph of one f; V: the
    peak of one f and its vector-Jacobian product; P: the gradient of the parameters. number: the setting of a dial, the
    8 of "revolve-8".
    """

    N: int
    s: int
    M: int = 1
    D: int = 0
    A: int = 0
    V: int = 0
    P: int = 0
    number: int = 0

    @property
    def kept(self) -> int:
        """The states kept besides the start by a dial set to number: at most one per later step."""
        return min(self.number, max(0, self.N - 1))

    @property
    def held(self) -> int:
        """The graphs held by a dial set to number: at most one per f call."""
        return min(self.number, self.N * self.s)

    @property
    def V_above_A(self) -> int:
        """The bytes that a vector-Jacobian product needs beyond its graph."""
        return max(0, self.V - self.A)

    @property
    def P_above_A(self) -> int:
        """The bytes that P adds to the peak if all graphs are live at once.

        All graphs are live only in the first VJP, which creates P: in the second, A less and P more is live.
        """
        return max(0, self.P - self.A)


Formula = Callable[[Symbols], int]


@dataclass(frozen=True)
class GradientRecord:
    """The facts about a gradient. The defaults are those of a gradient without a record.

    color and marker belong to the gradient in every figure, whichever contender computes it. on_dark is its color on a
    dark background, if it is another.
    exact_for_method: whether it is, to rounding, the gradient of the method's own steps.
    steps: the kind of steps that it takes, the method's or its own.
    memory: formula for the bytes that must be live at once, or None.
    backward_calls: formula for its f calls in the backward pass, with one output at the end, or None.
    default_number: the number of a dial whose name gives none. is_budget: whether it is a budget in KiB.
    """

    name: str
    color: str = UNKNOWN_COLOR
    on_dark: str | None = None
    marker: str = UNKNOWN_MARKER
    exact_for_method: bool = False
    steps: Literal["method", "leapfrog", "coupled"] = "method"
    memory: Formula | None = None
    backward_calls: Formula | None = None
    default_number: int = 0
    is_budget: bool = False

    @property
    def second_solve(self) -> bool:
        """Whether its backward pass is a solve with steps of its own, as that of a gradient without a record may be."""
        return not self.exact_for_method and self.steps == "method"


# The colours are Okabe and Ito's, then ones that were searched for: on either background any two are apart in normal
# vision and in deuteranopia.
# If memory does not grow with N (reversible, mali), the small terms count too: the two states and two cotangents of a
# pair, and two outputs with their cotangents.
_IN_DISPLAY_ORDER = (
    GradientRecord(
        "symplectic",
        color="#D55E00",
        on_dark="#FF781E",
        marker="o",
        exact_for_method=True,
        memory=lambda x: (x.N + x.s) * x.D + x.V + x.P,
        # Stages 1 .. s-1 of each step are recomputed, except those of the last of several steps, which are still there.
        backward_calls=lambda x: x.N * (2 * x.s - 1) - (x.M * (x.s - 1) if x.N > x.M else 0),
    ),
    GradientRecord(
        "aca",
        color="#0072B2",
        on_dark="#2DA5E1",
        marker="s",
        exact_for_method=True,
        memory=lambda x: x.N * x.D + x.s * x.A + x.V_above_A + x.P,
        backward_calls=lambda x: x.N * x.s,
    ),
    GradientRecord(
        "baseline",
        color="#009E73",
        on_dark="#1EC396",
        marker="^",
        exact_for_method=True,
        memory=lambda x: x.M * x.D + -(-x.N // x.M) * x.s * x.A + x.V_above_A + x.P_above_A,
        backward_calls=lambda x: x.N * x.s,
    ),
    GradientRecord(
        "stages",
        color="#CC79A7",
        on_dark="#F0A5C3",
        marker="D",
        exact_for_method=True,
        memory=lambda x: x.N * x.s * x.D + x.V + x.P,
        backward_calls=lambda x: x.N * x.s,
    ),
    GradientRecord(
        "backprop",
        color="#000000",
        on_dark="#FFFFFF",
        marker="P",
        exact_for_method=True,
        memory=lambda x: x.D + x.N * x.s * x.A + x.V_above_A + x.P_above_A,
        backward_calls=lambda x: 0,
    ),
    GradientRecord("direct", color="#C3965A", on_dark="#F0B43C", marker="d", exact_for_method=True),
    GradientRecord(
        "continuous", color="#56B4E9", on_dark="#87D2FF", marker="X", memory=lambda x: x.M * x.D + x.V + x.P
    ),
    GradientRecord(
        "continuous-seminorm", color="#E69F00", on_dark="#FFC387", marker="v", memory=lambda x: x.M * x.D + x.V + x.P
    ),
    GradientRecord(
        "revolve",
        color="#E196A5",
        on_dark="#F0E14B",
        marker="*",
        exact_for_method=True,
        memory=lambda x: (x.kept + 1 + x.s) * x.D + x.V + x.P,
        default_number=16,
    ),
    GradientRecord(
        "graphs",
        color="#69695A",
        on_dark="#A5781E",
        marker="H",
        exact_for_method=True,
        memory=lambda x: (x.N + max(x.s, x.held)) * x.D + x.held * x.A + x.V_above_A + x.P,
    ),
    GradientRecord(
        "disk",
        color="#697896",
        on_dark="#9696B4",
        marker="h",
        exact_for_method=True,
        memory=lambda x: (1 + x.s) * x.D + x.V + x.P,
    ),
    GradientRecord(
        "auto",  # fills its budget of that many KiB, unless everything fits in less
        color="#A51E0F",
        on_dark="#C32D4B",
        marker="8",
        is_budget=True,
        exact_for_method=True,
        memory=lambda x: min(x.number * 1024, (x.N + x.N * x.s) * x.D + x.N * x.s * x.A + x.V_above_A + x.P),
    ),
    GradientRecord(
        "reversible",
        color="#4B0087",
        on_dark="#9669E1",
        marker="<",
        steps="coupled",
        memory=lambda x: (2 * (x.M - 1) + 8 + x.s) * x.D + x.V + x.P,
    ),
    GradientRecord(
        "mali",
        color="#006978",
        on_dark="#1E96B4",
        marker=">",
        steps="leapfrog",
        memory=lambda x: (2 * (x.M - 1) + 7) * x.D + x.V + x.P,
    ),
    # A solve for each number: no gradient of any steps, and nothing kept.
    GradientRecord("differences-radau", color="#693C2D", on_dark="#C3874B", marker="1"),
    GradientRecord("differences-bdf", color="#2D4B5A", on_dark="#788778", marker="2"),
)

GRADIENT_RECORDS = {record.name: record for record in _IN_DISPLAY_ORDER}


def gradient_record(gradient: str) -> GradientRecord:
    """Return the record of a gradient or of the dial it sets ("revolve-8"), or the defaults if it has none."""
    name, _ = setting(gradient)
    return GRADIENT_RECORDS.get(name) or GradientRecord(name)


def gradient_place(gradient: str) -> tuple[int, int]:
    """Return a sort key: display order, then the number of a dial; gradients without a record come last."""
    name, number = setting(gradient)
    known = list(GRADIENT_RECORDS)
    return known.index(name) if name in known else len(known), number


def series_name(gradient: str) -> str:
    """Return the name that all settings of a dial share in a legend: "revolve-N" for "revolve-8"."""
    name, number = setting(gradient)
    return f"{name}-N" if number else gradient
