"""The targets of a captured solve on a card, evaluated on the measurements of gpu-report."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from symplectic_bench.analysis.paired import paired_ratio
from symplectic_bench.run.card_rounds import Result
from symplectic_bench.run.card_rows import CAPTURED, DIFFRAX, EAGER, TORCHDIFFEQ

Row = Mapping[str, Result]
"""The results of a row by name."""

MIB = 2**20
SMALL = 64 * MIB
"""Peaks of the eager gradient below which a captured one may need a number of bytes more, instead of a share."""


@dataclass(frozen=True)
class CardTarget:
    """A target of a row. `value` returns what was measured and how it is written, or None if it was not."""

    row: str
    name: str
    at_most: float
    value: Callable[[Row], tuple[float, str] | None]


@dataclass(frozen=True)
class CardVerdict:
    """A target with what was measured, None if it was not."""

    target: CardTarget
    value: float | None
    written: str

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.target.at_most


def time_over(other: str) -> Callable[[Row], tuple[float, str] | None]:
    """Return the ratio of the captured gradient's time to the other's, in the same rounds."""

    def value(row: Row) -> tuple[float, str] | None:
        if CAPTURED not in row or other not in row:
            return None
        found = paired_ratio(row[CAPTURED].samples_s, row[other].samples_s)
        return None if found is None else (found.median, str(found))

    return value


def per_f_call(row: Row) -> tuple[float, str] | None:
    """Return the captured gradient's microseconds for each f call."""
    one = row.get(CAPTURED)
    if one is None or not one.samples_s or not one.measured.get("f_calls"):
        return None
    found = 1e6 * one.median_s / one.measured["f_calls"]
    return found, f"{found:.3g} us"


def setting_up(row: Row) -> tuple[float, str] | None:
    """Return the seconds by which the first captured gradient takes longer than the others."""
    one = row.get(CAPTURED)
    if one is None or not one.samples_s:
        return None
    found = one.measured["first_s"] - one.median_s
    return found, f"{found:.3g} s"


def memory(name: str) -> Callable[[Row], tuple[float, str] | None]:
    """Return the captured peak less one theta over the eager one, as a share of what is allowed.

    1.1 times the eager peak is allowed where that is large, else 40 MiB more.
    """

    def value(row: Row) -> tuple[float, str] | None:
        if not {CAPTURED, EAGER} <= row.keys():
            return None
        captured, eager = (row[one].measured.get(name) for one in (CAPTURED, EAGER))
        if captured is None or eager is None:
            return None
        captured -= row[CAPTURED].measured["parameter_bytes"]
        allowed = 1.1 * eager if eager >= SMALL else eager + 40 * MIB
        return captured / allowed, f"{captured / MIB:.3g} MiB of {allowed / MIB:.3g} allowed"

    return value


TARGETS = (
    CardTarget("small", "time over diffrax, jitted", 0.5, time_over(DIFFRAX)),
    CardTarget("small", "time over torchdiffeq's backprop", 0.10, time_over(TORCHDIFFEQ)),
    CardTarget("med", "time over diffrax, jitted", 0.45, time_over(DIFFRAX)),
    CardTarget("med", "time over torchdiffeq's backprop", 0.11, time_over(TORCHDIFFEQ)),
    CardTarget("big", "time over diffrax, jitted", 0.85, time_over(DIFFRAX)),
    CardTarget("big", "time over torchdiffeq's backprop", 0.40, time_over(TORCHDIFFEQ)),
    CardTarget("fix50", "time over the captured bare calls", 1.15, time_over("captured bare calls")),
    CardTarget("fix400", "time over the captured bare calls", 1.15, time_over("captured bare calls")),
    CardTarget("identity", "microseconds per f call", 10.0, per_f_call),
    CardTarget("big", "peak of live tensors and graphs, of what is allowed", 1.0, memory("peak_tensor_bytes")),
    CardTarget("big", "peak of reserved bytes, of what is allowed", 1.0, memory("peak_reserved_bytes")),
    CardTarget("small", "seconds to set up", 0.3, setting_up),
)


def verdicts(rows: Mapping[str, Row]) -> Iterator[CardVerdict]:
    """Yield the verdict of every target whose row was measured."""
    for target in TARGETS:
        if target.row in rows:
            value, written = target.value(rows[target.row]) or (None, "not measured")
            yield CardVerdict(target, value, written)
