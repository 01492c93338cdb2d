"""A suite's runs in the order of their dates: how each metric moved, and where a deterministic counter took a step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symplectic_bench.analysis.baseline import COUNTERS, Baseline, cells_of, lines_of_rows
from symplectic_bench.analysis.overview import geometric_mean
from symplectic_bench.analysis.regression import Finding, Kind, compare_lines
from symplectic_bench.analysis.summary import comparable
from symplectic_bench.rows.record import Measurement

DETERMINISTIC = ("status", *COUNTERS, "peak_tensor_bytes")
"""What two runs of the same code on one machine have in common: a change is a change of the code, or of a package."""


@dataclass(frozen=True)
class Run:
    """The rows of a suite in one environment, and the facts of that environment."""

    facts: Mapping[str, Any]
    rows: Sequence[Measurement]

    @property
    def machine(self) -> str:
        """The machine's name: only times of one machine are compared."""
        return ", ".join([f"{self.facts['cpu']}, {self.facts['cores']} cores", *self.facts["gpus"]])


@dataclass(frozen=True)
class Step:
    """A deterministic value of a cell that differs from the run before. place is that of the run."""

    place: int
    finding: Finding


@dataclass(frozen=True)
class Metric:
    """A metric of a history: its name, its value in a row, and whether it depends on the machine's speed.

    counters: the fields of a row that it adds up.
    """

    name: str
    value: Callable[[Measurement], float | None]
    is_time: bool = False
    counters: tuple[str, ...] = ()


def _sum_of(*names: str) -> Callable[[Measurement], float | None]:
    def value(row: Measurement) -> float | None:
        found = [getattr(row, name) for name in names]
        return None if None in found else float(sum(found))

    return value


def _metric(name: str, *fields: str, is_time: bool = False) -> Metric:
    return Metric(name, _sum_of(*fields), is_time, fields)


METRICS = (
    _metric("f calls", "f_calls_forward", "f_calls_backward"),
    _metric("VJPs", "vjps_forward", "vjps_backward"),
    _metric("steps", "steps_accepted", "steps_rejected"),
    _metric("peak of live tensors", "peak_tensor_bytes"),
    _metric("time", "total_s", is_time=True),
)


def trend(runs: Sequence[Run], metric: Metric) -> list[tuple[int, float]]:
    """Return the metric of each run as a multiple of that of the first one, with the place of the run.

    From one run to the next the multiple grows by the geometric mean of the ratios of the cells that both measured, so
    that a suite may gain and lose cells. A run that has no cell in common with the one before is left out, and so are
    the runs after it; a history of fewer than two runs is empty.
    """
    found: list[tuple[int, float]] = []
    before: dict[str, float] = {}
    for place, run in enumerate(runs):
        values = {row.cell_id: value for row in run.rows if comparable(row) and (value := metric.value(row))}
        ratio = geometric_mean(values[id] / before[id] for id in values.keys() & before.keys())
        if found and ratio is None:
            break
        if values:
            found.append((place, found[-1][1] * ratio if found and ratio is not None else 1.0))
            before = values
    return found if len(found) > 1 else []


def steps(runs: Sequence[Run]) -> list[Step]:
    """Return every step of a deterministic value, between consecutive runs, in cells that both have.

    Tolerances are those of a baseline, including what another kind of processor may change.
    """
    found: list[Step] = []
    for place in range(1, len(runs)):
        before, now = (_lines(run) for run in runs[place - 1 : place + 1])
        kept = {line["cell_id"] for line in now}
        common = [line for line in before if line["cell_id"] in kept]
        kind = runs[place - 1].facts.get("cpu_kind")
        baseline = Baseline(cells_of(common), kinds=[kind] if kind else None)
        findings = [one for one in compare_lines(now, baseline) if one.metric in DETERMINISTIC]
        found += [Step(place, one) for one in findings if one.kind is Kind.REGRESSION]
    return found


def _lines(run: Run) -> list[dict[str, Any]]:
    """Return the lines that are compared, each with the kind of processor of the run."""
    return [line | {"kind": run.facts.get("cpu_kind")} for line in lines_of_rows(run.rows)]
