"""One measurement: a flat record with units in the names.

Standard library only, since every measuring process imports this module.
"""

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin

from symplectic_bench.spec.cell import SCHEMA, Cell, Size
from symplectic_bench.spec.status import Status


class UnreadableRow(ValueError):
    """A stored row that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything measured for one cell. What was not measured is None; a *_reason says why, where needed.

    Times are seconds, medians over the samples kept beside them; memory is bytes; gradient errors are
    relative. A contender whose gradient cannot be parted has total_s alone. compile_s is the first call of one that
    compiles, all of it. f_call_s and vjp_call_s are one bare call; floor_s and floor_tensor_bytes are the bare network
    calls that no method can avoid. state_bytes (D), graph_bytes (A, the graph of one f kept for its VJP) and
    parameter_bytes (P) are the symbols of the memory formulas. forward_error is the root mean
    square over the final state's components of (y - reference) / (atol + rtol |reference|); with fixed steps, which
    have no tolerance, of the same steps by textbook in float64, in units of rounding.
    """

    suite: str
    cell_id: str
    group_id: str
    problem: str
    sizes: dict[str, Size]
    batch: int
    method: str
    rtol: float | None
    atol: float | None
    steps: int | None
    gradient: str
    contender: str
    dtype: str
    device: str
    threads: int
    seed: int
    schema: int
    status: Status
    reason: str | None = None
    attempt: int = 1
    environment: str | None = None  # the id of what it was measured on

    f_calls_forward: int | None = None
    f_calls_backward: int | None = None
    vjps_forward: int | None = None
    vjps_backward: int | None = None
    stages: int | None = None
    steps_accepted: int | None = None
    steps_rejected: int | None = None
    steps_backward: int | None = None  # accepted by the second solve of a continuous adjoint

    forward_s: float | None = None
    backward_s: float | None = None
    total_s: float | None = None
    forward_samples_s: list[float] | None = None
    backward_samples_s: list[float] | None = None
    total_samples_s: list[float] | None = None  # where there are no others
    compile_s: float | None = None
    f_call_s: float | None = None
    vjp_call_s: float | None = None
    floor_s: float | None = None

    peak_tensor_bytes: int | None = None
    peak_tensor_source: str | None = None  # "exact" | "fit"
    forward_peak_tensor_bytes: int | None = None
    kept_tensor_bytes: int | None = None  # live between forward and backward
    floor_tensor_bytes: int | None = None
    state_bytes: int | None = None
    graph_bytes: int | None = None
    vjp_peak_bytes: int | None = None
    parameter_bytes: int | None = None
    peak_rss_bytes: int | None = None
    rss_curve_peak_bytes: int | None = None
    rss_curve_s: list[float] | None = None  # at most 64 points
    rss_curve_bytes: list[int] | None = None
    peak_reserved_bytes: int | None = None  # CUDA

    error_discrete: float | None = None
    error_discrete_oracle: str | None = None  # "float64" | "50 digits"
    error_discrete_reason: str | None = None
    error_true: float | None = None
    error_true_bar: float | None = None
    error_true_reference: str | None = None  # "closed form" | "Taylor series" | "self-convergence"
    error_true_reason: str | None = None
    forward_error: float | None = None
    forward_disagrees: bool | None = None
    loss: float | None = None

    # Of a network that was trained: one value an iteration, and how good it was in the end.
    losses: list[float] | None = None
    f_calls_samples: list[int] | None = None
    steps_samples: list[int] | None = None
    cold_iterations: list[int] | None = None  # those that a process began with
    metrics: dict[str, float] | None = None

    @classmethod
    def for_cell(cls, cell: Cell, **measured: Any) -> Self:
        """A row for `cell`; `measured` gives status and whatever fields there are."""
        shared = {f.name: getattr(cell, f.name) for f in fields(Cell) if f.name != "sizes"}
        ids = {"cell_id": cell.id, "group_id": cell.group_id, "schema": SCHEMA}
        return cls(**shared, **ids, sizes=cell.sizes_dict, **measured)

    @property
    def cell(self) -> Cell:
        """The cell that was measured."""
        shared = {f.name: getattr(self, f.name) for f in fields(Cell) if f.name != "sizes"}
        return Cell(**shared, sizes=tuple(sorted(self.sizes.items())))

    def to_json(self) -> dict[str, Any]:
        """Plain values for strict JSON: NaN and infinities become the strings in NON_FINITE."""
        return {f.name: frozen(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, row: Any) -> Self:
        """The inverse of to_json. What an older version did not write is None.

        Raises UnreadableRow for a newer version's row, and for what no version wrote: a value of another kind than its
        field's, a cost below zero, or an id that is not that of the cell.
        """
        if not isinstance(row, dict):
            raise UnreadableRow(f"not a row of measurements ({type(row).__name__}): {ADVICE}")
        unknown = sorted(row.keys() - _FITS.keys())
        schema = row.get("schema", SCHEMA)
        if unknown or not isinstance(schema, int) or schema > SCHEMA:
            raise UnreadableRow(
                f"a row of schema {schema!r} with unknown keys {unknown[:5]} was written by a newer"
                f" version (this one knows {SCHEMA}): update this program, or measure again with --fresh"
            )
        try:
            values: dict[str, Any] = {k: _thaw(v) if k in _FLOATS else v for k, v in row.items()}
            for name, value in values.items():
                if not _FITS[name](value) or (name in COSTS and value is not None and value < 0):
                    raise ValueError(f"{name} is {value!r:.80}")
                if type(value) is str:
                    values[name] = sys.intern(value)  # most are the same in all rows
            values["status"] = Status(row["status"])
            found = cls(**values)
            found._check()
            return found
        except (KeyError, TypeError, ValueError) as why:
            raise UnreadableRow(f"not a row of measurements ({why}): {ADVICE}") from why

    def _check(self) -> None:
        """Raises ValueError for values that each are of their kind and do not go together."""
        if (self.cell_id, self.group_id) != (self.cell.id, self.cell.group_id):
            raise ValueError("its ids are not those of its cell")
        if self.dtype not in DTYPES or self.device not in DEVICES:
            raise ValueError(f"dtype {self.dtype!r:.20} on {self.device!r:.20}")
        if self.environment is not None and not re.fullmatch(r"[0-9a-f]{12}", self.environment):
            raise ValueError(f"environment is {self.environment!r:.80}")
        lengths = {len(one) for one in (self.losses, self.f_calls_samples, self.steps_samples) if one is not None}
        if self.losses is not None and len(lengths | {len(self.total_samples_s or self.losses)}) > 1:
            raise ValueError("its losses are not as many as their times or counts")


DTYPES, DEVICES = ("float32", "float64"), ("cpu", "cuda")

ADVICE = "remove it, or use --fresh"


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOATS = {f.name for f in fields(Measurement) if "float" in str(f.type)}


def frozen(value: Any) -> Any:
    """The value for strict JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [frozen(v) for v in value]
    if isinstance(value, dict):
        return {key: frozen(v) for key, v in value.items()}
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, list):
        return [_thaw(v) for v in value]
    if isinstance(value, dict):
        return {key: _thaw(v) for key, v in value.items()}
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _fits(kind: Any) -> Callable[[Any], bool]:
    """Whether a value read from JSON is of the kind that a field's annotation says."""
    own, inner = get_origin(kind) or kind, [_fits(argument) for argument in get_args(kind)]
    if own is UnionType:
        return lambda value: any(fits(value) for fits in inner)
    if own is NoneType:
        return lambda value: value is None
    if own is list:
        return lambda value: type(value) is list and all(map(inner[0], value))
    if own is dict:
        return lambda value: type(value) is dict and all(map(inner[1], value.values()))
    if own is float:
        return lambda value: type(value) is float or is_integer(value)
    if own is int:
        return is_integer
    if own is bool:
        return lambda value: type(value) is bool
    return lambda value: isinstance(value, str) and (value.isascii() or _can_be_written(value))


def is_integer(value: Any) -> bool:
    """One that a table's column can hold."""
    return type(value) is int and -(2**63) <= value < 2**63


def _can_be_written(text: str) -> bool:
    """JSON has characters, halves of others, that no file can have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


COSTS = frozenset(
    f.name
    for f in fields(Measurement)
    if f.name.startswith(("f_calls_", "vjps_", "steps_"))
    or f.name.endswith(("_s", "tensor_bytes"))
    or f.name in ("stages", "attempt", "error_discrete", "error_true", "error_true_bar", "forward_error")
) - {f.name for f in fields(Measurement) if get_origin(f.type) is list or "list" in str(f.type)}
"""Single numbers that are never below zero."""

_FITS = {f.name: _fits(f.type) for f in fields(Measurement)}
