"""The figure of claims: what was measured for each, as a multiple of its limit."""

from collections.abc import Sequence

from symplectic_bench.analysis.claims import ClaimOutcome, ClaimResult, support
from symplectic_bench.analysis.criteria import CriterionResult
from symplectic_bench.report.headlines import Share
from symplectic_bench.report.panels import Axis, FigureSpec, Panel, Series, Style, apart, can_be_drawn
from symplectic_bench.spec.criteria import Criterion

STYLES = {
    ClaimOutcome.HOLDS: Style("#D55E00", "#FF781E", "o", filled=True, dashed=False),
    ClaimOutcome.HOLDS_WHEN: Style("#CC79A7", "#F0A5C3", "D", filled=True, dashed=False),
    ClaimOutcome.FAILS: Style("#0072B2", "#2DA5E1", "s", filled=False, dashed=False),
}


def claim_figure(claims: Sequence[ClaimResult], where: str) -> FigureSpec:
    """Draw a row for each criterion with a limit: the range of what was measured, over the limit."""
    drawn = [(_label(result, one), one) for result in claims for one in result.criteria if _over_limit(one)]
    caption = (
        "Each row is a criterion of a claim, with the number of the claim: the least and the largest value that were"
        " measured, as multiples of the claim's limit (the reciprocal if the limit is an upper one). From 1 on the"
        " criterion is met. Criteria that were not measured have no row; the tables have them, and all values."
    )
    known = [result for result in claims if result.outcome is not ClaimOutcome.NOT_MEASURED]
    holding = sum(result.outcome is ClaimOutcome.HOLDS for result in known)
    headline = Share(holding, len(known), "{} claims that were measured hold") if known else None
    names = tuple(label for label, _ in reversed(drawn))
    series = [_row(one, float(names.index(label))) for label, one in drawn]
    panel = Panel(
        "", Axis("times the claim's limit"), Axis("", log=False, names=names), tuple(series), headline=headline
    )
    return FigureSpec("claims", "Claims over their limits", caption, where, apart([panel] if drawn else []))


def _label(result: ClaimResult, one: CriterionResult) -> str:
    """Return the number and the first words of the claim, and the criterion."""
    return f"{result.claim.point}. {result.claim.name.partition(':')[0]}: {one.criterion.name}"


def _row(result: CriterionResult, place: float) -> Series:
    values, outcome = _over_limit(result), support(result)
    ends = tuple(dict.fromkeys((min(values), max(values))))
    return Series(str(outcome), "", STYLES[outcome], ends, (place,) * len(ends))


def _over_limit(result: CriterionResult) -> list[float]:
    """Return the values over the limit, so that those that meet it are 1 or more; none for exponents."""
    over = [_multiple(result.criterion, value) for value in result.values]
    return [value for value in over if can_be_drawn(value)]


def _multiple(criterion: Criterion, value: float) -> float | None:
    if criterion.at_least is not None:
        return value / criterion.at_least
    return None if criterion.at_most is None or value == 0.0 else criterion.at_most / value
