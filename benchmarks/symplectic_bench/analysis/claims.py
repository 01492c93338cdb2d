"""Claims, and targets as claims with one criterion: how far each holds according to its criteria, and where."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from symplectic_bench.analysis.criteria import CriterionOutcome, CriterionResult, Evaluation, evaluate
from symplectic_bench.analysis.summary import Line
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.criteria import Claim
from symplectic_bench.spec.expansion import axes


class ClaimOutcome(StrEnum):
    """How far a claim holds, according to all of its criteria or to one."""

    HOLDS = "holds"
    HOLDS_WHEN = "holds when"
    FAILS = "fails"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class ClaimResult:
    """A claim with the result of each of its criteria, in the claim's order."""

    claim: Claim
    criteria: tuple[CriterionResult, ...]

    @property
    def outcome(self) -> ClaimOutcome:
        """The outcome of all criteria together; criteria that were not measured do not count."""
        return _common({support(result) for result in self.criteria} - {ClaimOutcome.NOT_MEASURED})


def evaluate_claims(claims: Sequence[Claim], cells: Sequence[Cell], lines: Sequence[Line]) -> list[ClaimResult]:
    """Return the result of every claim on the cells that it selects. lines are those of a summary."""
    return [ClaimResult(claim, tuple(evaluate(claim.criterion, cells, lines))) for claim in claims]


def support(result: CriterionResult) -> ClaimOutcome:
    """Return how far one criterion supports its claim: whether it is met at all measured places, at some or at none."""
    outcomes = {evaluation.outcome for evaluation in result.evaluations} - {CriterionOutcome.NOT_MEASURED}
    met = CriterionOutcome.MET
    return _common({ClaimOutcome.HOLDS if outcome is met else ClaimOutcome.FAILS for outcome in outcomes})


def _common(outcomes: set[ClaimOutcome]) -> ClaimOutcome:
    if not outcomes:
        return ClaimOutcome.NOT_MEASURED
    return outcomes.pop() if len(outcomes) == 1 else ClaimOutcome.HOLDS_WHEN


def support_text(result: CriterionResult) -> str:
    """Return how far one criterion supports its claim, in words: "holds when steps >= 100"."""
    return f"{support(result)} {condition(result)}".rstrip()


def condition(result: CriterionResult) -> str:
    """Return where a criterion is met if it is met only at some places, else an empty string.

    The condition is on a single axis or size if that separates the places that meet the limit from those that miss it.
    Otherwise it names the places.
    """
    met, missed = result.having(CriterionOutcome.MET), result.having(CriterionOutcome.NOT_MET)
    if not (met and missed):
        return ""
    if result.criterion.powers is not None:
        return f"not along {', '.join(dict.fromkeys(evaluation.axis for evaluation in missed))}"
    first = met[0].cells[0]
    for axis in (*SEPARATING, *(name for name, _ in first.sizes if name in axes(first))):
        if found := _condition_on(axis, met, missed):
            return found
    return _named_groups(met, missed)


SEPARATING = ("problem", "dtype", "method", "steps", "rtol", "batch")
"""The axes on which a condition is sought first, in order of preference; the sizes come next."""

FEW = 2
"""The number of groups that a condition names."""


def _condition_on(axis: str, met: Sequence[Evaluation], missed: Sequence[Evaluation]) -> str:
    """Return a condition such as "steps >= 100" if this axis alone separates the two, else an empty string."""
    yes, no = ({axes(evaluation.cells[0]).get(axis) for evaluation in some} for some in (met, missed))
    if yes & no or None in yes:
        return ""
    numbers, others = ({x for x in some if isinstance(x, int | float)} for some in (yes, no))
    if numbers == yes and others == no:
        if min(numbers) > max(others):
            return f"{axis} >= {min(numbers):g}"
        if max(numbers) < min(others):
            return f"{axis} <= {max(numbers):g}"
    return f"{axis} {', '.join(sorted(map(str, yes)))}"


def _named_groups(met: Sequence[Evaluation], missed: Sequence[Evaluation]) -> str:
    """Name the groups that meet the limit, or those that miss it if they are fewer."""
    few, preposition = (met, "in ") if len(met) <= len(missed) else (missed, "not in ")
    chosen, every = Counter(one.group for one in few), Counter(one.group for one in (*met, *missed))
    # Places that differ only in something the label omits, such as the seed, share a group here and need not agree.
    named = [group if n == every[group] else f"{group} ({n} of {every[group]})" for group, n in chosen.items()]
    more = f" and {len(named) - FEW} more" if len(named) > FEW else ""
    return preposition + "; ".join(named[:FEW]) + more


def target_headline(target: ClaimResult) -> str:
    """Return the target in one line with its worst value and how many places meet it."""
    (result,) = target.criteria
    worst = "" if result.worst is None else f"worst {result.worst:.3g}, "
    met, places = len(result.having(CriterionOutcome.MET)), len(result.evaluations)
    sentence = f"{target.claim.point}. {target.claim.name}: {result.criterion.limit}"
    return f"{sentence}; {worst}met in {met} of {places}"


def shortfalls(result: CriterionResult) -> list[str]:
    """Return a line for each place that misses the limit, and one for each reason why places were not measured."""
    reasons = Counter(one.note for one in result.having(CriterionOutcome.NOT_MEASURED))
    missed = [
        f"{one.value:.3g}: {one.group}: {one.name}{f' ({one.note})' if one.note else ''}"
        for one in result.having(CriterionOutcome.NOT_MET)
    ]
    return missed + [f"not measured ({n}): {reason}" for reason, n in reasons.items()]
