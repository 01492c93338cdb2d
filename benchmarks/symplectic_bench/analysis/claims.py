"""Claims ruled on: whether each holds, holds somewhere or fails, by what was measured."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

from symplectic_bench.analysis.summary import Line, display_place
from symplectic_bench.analysis.trials import Judgement, Outcome, Verdict, judge
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import axes
from symplectic_bench.spec.suite import Claim, Measure, Trial


class Ruling(StrEnum):
    HOLDS = "holds"
    HOLDS_WHEN = "holds when"
    FAILS = "fails"
    OPEN = "not measured"


@dataclass(frozen=True)
class Hearing:
    """A claim with the judgement of each of its trials, in the claim's order."""

    claim: Claim
    judgements: tuple[Judgement[Trial], ...]

    @property
    def ruling(self) -> Ruling:
        """That of all trials together; those that were not measured have no voice."""
        return _common({rule(judgement) for judgement in self.judgements} - {Ruling.OPEN})


def hear(claims: Sequence[Claim], cells: Sequence[Cell], lines: Sequence[Line]) -> list[Hearing]:
    """Every claim, its trials held against the rows. lines are those of a summary."""
    return [Hearing(claim, tuple(judge(claim.trial, cells, lines))) for claim in claims]


def rule(judgement: Judgement[Trial]) -> Ruling:
    """By the cells that were measured: met by all, by some, by none."""
    outcomes = {verdict.outcome for verdict in judgement.verdicts} - {Outcome.NOT_MEASURED}
    return _common({Ruling.HOLDS if one is Outcome.MET else Ruling.FAILS for one in outcomes})


def _common(rulings: set[Ruling]) -> Ruling:
    return Ruling.OPEN if not rulings else rulings.pop() if len(rulings) == 1 else Ruling.HOLDS_WHEN


def when(judgement: Judgement[Trial]) -> str:
    """Where a trial is met, if only somewhere: the one axis or size that tells, or the cells themselves."""
    if rule(judgement) is not Ruling.HOLDS_WHEN:
        return ""
    met = [v for v in judgement.verdicts if v.outcome is Outcome.MET]
    missed = [v for v in judgement.verdicts if v.outcome is Outcome.NOT_MET]
    if judgement.trial.powers is not None:
        return f"not along {', '.join(dict.fromkeys(v.axis for v in missed))}"
    for axis in _axes_of(met[0]):
        if condition := _told_by(axis, met, missed):
            return condition
    few, which = (met, "in ") if len(met) <= len(missed) else (missed, "not in ")
    chosen, every = Counter(verdict.group for verdict in few), Counter(verdict.group for verdict in (*met, *missed))
    # Groups that differ in what a label leaves out, such as the seed, need not agree.
    named = [group if n == every[group] else f"{group} ({n} of {every[group]})" for group, n in chosen.items()]
    more = f" and {len(named) - FEW} more" if len(named) > FEW else ""
    return which + "; ".join(named[:FEW]) + more


FEW = 2
"""Groups that are named."""

TELLING = ("problem", "dtype", "method", "steps", "rtol", "batch")
"""Axes by which people would say it, before the sizes."""


def _axes_of(verdict: Verdict) -> list[str]:
    own = axes(verdict.cells[0])
    return [*TELLING, *(name for name, _ in verdict.cells[0].sizes if name in own)]


def _told_by(axis: str, met: Sequence[Verdict], missed: Sequence[Verdict]) -> str:
    """ "steps >= 100", where that axis alone tells the cells that meet the trial from those that do not."""
    yes, no = ({axes(verdict.cells[0]).get(axis) for verdict in some} for some in (met, missed))
    if yes & no or None in yes:
        return ""
    numbers, others = ({x for x in some if isinstance(x, int | float)} for some in (yes, no))
    if numbers == yes and others == no:
        if min(numbers) > max(others):
            return f"{axis} >= {min(numbers):g}"
        if max(numbers) < min(others):
            return f"{axis} <= {max(numbers):g}"
    return f"{axis} {', '.join(sorted(map(str, yes)))}"


WORDS = {
    "calls": "calls of f and of its vector-Jacobian product",
    "kept_tensor_bytes": "bytes kept from the forward pass for the backward pass",
    "backward_tensor_bytes": "bytes of the backward pass above what was kept",
    "peak_tensor_bytes": "peak of tensors",
    "backward_s": "time of the backward pass",
}


def words(measure: str) -> str:
    """What is measured, for people."""
    return WORDS.get(measure, measure)


def exponents(hearings: Sequence[Hearing], cells: Sequence[Cell], lines: Sequence[Line]) -> list[Line]:
    """Every contender's and gradient's exponent of whatever the claims fit, along whatever they fit it along.

    Of several series the longest. A line has measure, name, contender, gradient, axis, exponent and half_width.
    """
    fitted = [one.trial for hearing in hearings for one in hearing.judgements if one.trial.powers]
    measures: list[Measure] = list(dict.fromkeys(trial.measure for trial in fitted))
    axes = list(dict.fromkeys(axis for trial in fitted for axis in trial.powers or ()))
    names = dict.fromkeys((cell.contender, cell.gradient) for cell in cells)
    found = []
    for measure, (contender, gradient) in product(
        measures, sorted(names, key=lambda name: display_place(" ".join(name)))
    ):
        meant: dict[str, Any] = {"contender": [contender], "gradient": [gradient]}
        trial = Trial(name=measure, cells=meant, measure=measure, powers=dict.fromkeys(axes, 1.0), within=1.0)
        (judgement,) = judge([trial], cells, lines)
        for axis in axes:
            known = [v for v in judgement.verdicts if v.axis == axis and v.measured is not None]
            if known:
                longest = max(known, key=lambda verdict: len(verdict.cells))
                line: Line = {"measure": measure, "name": f"{contender} {gradient}", "contender": contender}
                line |= {"gradient": gradient, "axis": axis, "exponent": longest.measured}
                found.append(line | {"half_width": longest.half_width})
    return found
