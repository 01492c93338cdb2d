"""Criteria in suite files: limits on measured quantities, used singly as targets or together to support a claim."""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from symplectic_bench.spec.cell import Size
from symplectic_bench.spec.toml_table import AxisValues, Count, Name, Positive, TomlTable

Measure = Literal[
    "time_over_floor",
    "time_over_captured_floor",
    "memory_over_floor",
    "f_calls_over_formula",
    "total_s",
    "forward_s",
    "backward_s",
    "forward_per_call_s",
    "peak_tensor_bytes",
    "kept_tensor_bytes",
    "backward_tensor_bytes",
    "peak_states",
    "f_calls",
    "calls",
    "calls_per_stage",
    "error_discrete",
    "error_true",
    "forward_error",
    "gave_up",
    "losses_off",
    "steps_back_over_forth",
]
"""The columns of the summary that a criterion may limit."""

MEASURE_LABELS = {
    "gave_up": "solves given up",
    "calls": "calls of f and of its vector-Jacobian product",
    "kept_tensor_bytes": "bytes kept from the forward pass for the backward pass",
    "backward_tensor_bytes": "bytes of the backward pass above what was kept",
    "peak_tensor_bytes": "peak tensor memory",
    "backward_s": "time of the backward pass",
}


def measure_label(measure: str) -> str:
    """Return the label of a measure in tables and figures."""
    return MEASURE_LABELS.get(measure, measure)


class Criterion(TomlTable):
    """A limit on a quantity measured at certain cells. A run never fails because of one.

    name is the text that readers see. cells maps an axis or a size to the values selected, one or a list. The quantity
    is one of:

    - the measure itself;
    - with `over`, its ratio to that of another contender and gradient in the same group ("torchdiffeq backprop");
    - with `along`, its change between neighbouring cells that differ only in that axis or size, or only in the method
      if the axis is "stages". `change` is "per_unit", the difference divided by that of the axis, or "exponent", the p
      of growth as axis^p;
    - with `powers`, for each axis named, the exponent fitted to all cells that differ only in that axis.

    The limit is `at_most` or `at_least`. With `powers` each exponent must be `within` that distance of the one given.
    """

    name: Name
    cells: Annotated[dict[str, AxisValues[Size]], Field(min_length=1)]
    measure: Measure
    over: Name | None = None
    along: Name | None = None
    change: Literal["per_unit", "exponent"] | None = None
    at_most: Positive | None = None
    at_least: Positive | None = None
    powers: Annotated[dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)] | None = None
    within: Positive | None = None

    @model_validator(mode="after")
    def _compares_in_one_way(self) -> Self:
        if (self.along is None) != (self.change is None):
            raise ValueError("along and change belong together: give both or none")
        if self.over is not None and self.along is not None:
            raise ValueError("give over (another cell) or along (an axis), not both")
        if self.along in self.cells and len(self.cells[self.along]) == 1:
            only = self.cells[self.along][0]
            raise ValueError(f"along {self.along!r} compares several of its values, but cells allows only {only!r}")
        return self

    @model_validator(mode="after")
    def _has_one_limit(self) -> Self:
        if sum(limit is not None for limit in (self.at_most, self.at_least, self.powers)) != 1:
            raise ValueError("give at_most, at_least or powers, one of the three")
        if (self.powers is None) != (self.within is None):
            raise ValueError("powers and within belong together: give both or none")
        if self.powers is not None and (self.over is not None or self.along is not None):
            raise ValueError(
                "powers already name the axes and apply to the measure itself: remove over, along and change"
            )
        return self

    @property
    def limit(self) -> str:
        """The limit in words."""
        if self.powers is not None:
            return f"{', '.join(f'{axis} {power:g}' for axis, power in self.powers.items())}, each ± {self.within:g}"
        return f"at least {self.at_least:g}" if self.at_most is None else f"at most {self.at_most:g}"

    def is_met_by(self, value: float, axis: str = "") -> bool:
        """Return whether a value is within the limit. With `powers`, the value is the exponent along `axis`."""
        if self.powers is not None and self.within is not None:
            return abs(value - self.powers[axis]) <= self.within
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)


class Claim(TomlTable):
    """A statement, and the criteria that show how far it holds. point is its number in the list of claims."""

    point: Count
    name: Name
    # Older suite files write [[claim.trial]] for a criterion.
    criterion: Annotated[list[Criterion], Field(min_length=1, validation_alias=AliasChoices("criterion", "trial"))]


class Target(Criterion):
    """A goal of the library: a claim with one criterion, in one table. point is its number in the list of targets."""

    point: Count

    @property
    def claim(self) -> Claim:
        return Claim(point=self.point, name=self.name, criterion=[self])
