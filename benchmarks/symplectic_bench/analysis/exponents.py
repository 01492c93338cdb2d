"""The exponents in a suite's claims, fitted for every contender and gradient."""

from collections.abc import Sequence
from typing import Any

from symplectic_bench.analysis.claims import ClaimResult
from symplectic_bench.analysis.criteria import CriterionOutcome, Evaluation, evaluate
from symplectic_bench.analysis.summary import Line, display_place
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.criteria import Criterion, Measure


def exponents(claims: Sequence[ClaimResult], cells: Sequence[Cell], lines: Sequence[Line]) -> list[Line]:
    """Return the exponent of each measure along each axis that a criterion with `powers` names.

    If there are several series, the longest counts. A line has measure, name, contender, gradient, axis, exponent,
    half_width and the number of points; and, if a claim was evaluated on the same series, predicted, its exponent, and
    as_predicted, whether the fitted one is within its limit.
    """
    fitted = [one.criterion for claim in claims for one in claim.criteria if one.criterion.powers]
    measures: list[Measure] = list(dict.fromkeys(criterion.measure for criterion in fitted))
    powers = {
        axis: 1.0 for criterion in fitted for axis in criterion.powers or ()
    }  # any limit will do: only the values are used
    evaluations = [one for claim in claims for result in claim.criteria for one in result.evaluations]
    claimed = {(one.criterion.measure, one.axis, one.cells): one for one in evaluations if one.criterion.powers}
    found: list[Line] = []
    for measure in measures:
        for name in sorted({cell.name for cell in cells}, key=display_place):
            axes = dict(zip(("contender", "gradient"), name.split(" ", 1), strict=True))
            selected: dict[str, Any] = {axis: [value] for axis, value in axes.items()}
            criterion = Criterion(name=name, cells=selected, measure=measure, powers=powers, within=1.0)
            (result,) = evaluate([criterion], cells, lines)
            for axis in powers:
                known = [one for one in result.evaluations if one.axis == axis and one.value is not None]
                if known:
                    longest = max(known, key=lambda one: len(one.cells))
                    line = {"axis": axis, "exponent": longest.value, "half_width": longest.half_width}
                    line |= {"points": len(longest.cells), **_prediction(claimed.get((measure, axis, longest.cells)))}
                    found.append({"measure": measure, "name": name, **axes, **line})
    return found


def _prediction(claimed: Evaluation | None) -> Line:
    if claimed is None or claimed.criterion.powers is None or claimed.value is None:
        return {"predicted": None, "as_predicted": None}
    return {
        "predicted": claimed.criterion.powers[claimed.axis],
        "as_predicted": claimed.outcome is CriterionOutcome.MET,
    }
