"""One measurement: a flat record with units in the field names.

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
    """Everything measured for one cell. A value that was not measured is None; a *_reason field says why if needed.

    Times are in seconds, medians of the samples stored with them; memory is in bytes; gradient errors are relative. A
    contender whose forward and backward pass cannot be timed separately has total_s only. compile_s is the whole first
    call of a contender that compiles or captures. f_call_s and vjp_call_s are one bare call each; floor_s and
    floor_tensor_bytes are the cost of the bare network calls that no method can avoid. f_call_captured_s,
    vjp_call_captured_s and floor_captured_s are the same calls replayed from a CUDA graph. state_bytes (D), graph_bytes
    (A, the graph of one f kept for its VJP) and parameter_bytes (P) are the symbols of the memory formulas.
    forward_error is the root mean square of (y - reference) / (atol + rtol |reference|) over the components of the
    final state; with fixed steps, which have no tolerance, the reference is a textbook solve in float64 with the same
    steps, and the unit is rounding error.
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
    environment: str | None = None  # the id of the environment it was measured in
    measuring_s: float | None = None  # all of its measuring, processes and rounds; a group's rows add up to its time

    f_calls_forward: int | None = None
    f_calls_backward: int | None = None
    vjps_forward: int | None = None
    vjps_backward: int | None = None
    stages: int | None = None
    steps_accepted: int | None = None
    steps_rejected: int | None = None
    steps_backward: int | None = None  # accepted in the second solve of a continuous adjoint

    forward_s: float | None = None
    backward_s: float | None = None
    total_s: float | None = None
    forward_samples_s: list[float] | None = None
    backward_samples_s: list[float] | None = None
    total_samples_s: list[float] | None = None  # only if the passes are not timed separately, or in training
    compile_s: float | None = None
    f_call_s: float | None = None
    vjp_call_s: float | None = None
    backward_cpu_samples_s: list[float] | None = None  # of the processor, in this process
    f_call_cpu_samples_s: list[float] | None = None
    vjp_call_cpu_samples_s: list[float] | None = None
    backward_waits: int | None = None  # how often the backward pass gave up its core, in the best of the rounds
    floor_s: float | None = None
    f_call_captured_s: float | None = None  # CUDA
    vjp_call_captured_s: float | None = None  # CUDA
    floor_captured_s: float | None = None  # CUDA
    floor_captured_reason: str | None = None

    peak_tensor_bytes: int | None = None
    peak_tensor_source: str | None = None  # "exact" | "fit"
    forward_peak_tensor_bytes: int | None = None
    kept_tensor_bytes: int | None = None  # live between forward and backward pass
    left_tensor_bytes: int | None = None  # live after a first gradient, for later ones: part of the peaks if captured
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

    # Of a trained network: one value per iteration, and the quality of the result.
    losses: list[float] | None = None
    f_calls_samples: list[int] | None = None
    steps_samples: list[int] | None = None
    cold_iterations: list[int] | None = None  # the first ones of each process
    metrics: dict[str, float] | None = None

    @classmethod
    def for_cell(cls, cell: Cell, **measured: Any) -> Self:
        """Return a row for `cell` with its status and the other fields in `measured`."""
        shared = {f.name: getattr(cell, f.name) for f in fields(Cell) if f.name != "sizes"}
        ids = {"cell_id": cell.id, "group_id": cell.group_id, "schema": SCHEMA}
        return cls(**shared, **ids, sizes=cell.sizes_dict, **measured)

    @property
    def cell(self) -> Cell:
        """The cell that was measured."""
        shared = {f.name: getattr(self, f.name) for f in fields(Cell) if f.name != "sizes"}
        return Cell(**shared, sizes=tuple(sorted(self.sizes.items())))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for strict JSON: NaN and infinities become the strings in NON_FINITE."""
        return {f.name: to_json_value(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, row: Any) -> Self:
        """Return the row that to_json turned into `row`. Fields that an older version did not write are None.

        Raises UnreadableRow for a row of a newer version, and for an invalid one: a value of the wrong type, a negative
        cost, or an id that is not its cell's.
        """
        if not isinstance(row, dict):
            raise UnreadableRow(f"not a row of measurements ({type(row).__name__}): {ADVICE}")
        unknown = sorted(row.keys() - _FITS.keys())
        schema = row.get("schema", SCHEMA)
        if unknown or not isinstance(schema, int) or schema > SCHEMA:
            raise UnreadableRow(
                f"a row of schema {schema!r} with unknown keys {unknown[:5]} was written by a newer version (this one"
                f" knows schema {SCHEMA}): update this program, or measure again with --fresh"
            )
        try:
            values: dict[str, Any] = {k: _from_json_value(v) if k in _FLOATS else v for k, v in row.items()}
            for name, value in values.items():
                if not _FITS[name](value) or (name in COSTS and value is not None and value < 0):
                    raise ValueError(f"{name} is {value!r:.80}")
                if type(value) is str:
                    values[name] = sys.intern(value)  # most strings recur in every row
            values["status"] = Status(row["status"])
            found = cls(**values)
            found._check()
            return found
        except (KeyError, TypeError, ValueError) as why:
            raise UnreadableRow(f"not a row of measurements ({why}): {ADVICE}") from why

    def _check(self) -> None:
        """Raise ValueError for values that have the right types but contradict each other."""
        if (self.cell_id, self.group_id) != (self.cell.id, self.cell.group_id):
            raise ValueError("its ids are not those of its cell")
        if self.dtype not in DTYPES or self.device not in DEVICES:
            raise ValueError(f"dtype {self.dtype!r:.20} on {self.device!r:.20}")
        if self.environment is not None and not re.fullmatch(r"[0-9a-f]{12}", self.environment):
            raise ValueError(f"environment is {self.environment!r:.80}")
        lengths = {len(one) for one in (self.losses, self.f_calls_samples, self.steps_samples) if one is not None}
        if self.losses is not None and len(lengths | {len(self.total_samples_s or self.losses)}) > 1:
            raise ValueError("its numbers of losses, times and counts differ")


DTYPES, DEVICES = ("float32", "float64"), ("cpu", "cuda")

ADVICE = "remove it, or measure again with --fresh"

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOATS = {f.name for f in fields(Measurement) if "float" in str(f.type)}


def to_json_value(value: Any) -> Any:
    """Return the value for strict JSON, with NaN and infinities replaced by the strings in NON_FINITE."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [to_json_value(v) for v in value]
    if isinstance(value, dict):
        return {key: to_json_value(v) for key, v in value.items()}
    return value


def _from_json_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json_value(v) for v in value]
    if isinstance(value, dict):
        return {key: _from_json_value(v) for key, v in value.items()}
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def fits(kind: Any) -> Callable[[Any], bool]:
    """Return a predicate that tells whether a value read from JSON has this type, a field's annotation."""
    own, inner = get_origin(kind) or kind, [fits(argument) for argument in get_args(kind)]
    if own is UnionType:
        return lambda value: any(one(value) for one in inner)
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
    """Return whether the value is an integer that a 64-bit column can hold."""
    return type(value) is int and -(2**63) <= value < 2**63


def _can_be_written(text: str) -> bool:
    """Return whether the text is valid Unicode: JSON can also express lone surrogates, which no file can hold."""
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
"""Fields of single numbers that are never negative."""

_FITS = {f.name: fits(f.type) for f in fields(Measurement)}
