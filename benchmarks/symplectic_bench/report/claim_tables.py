"""Claims as tables: their outcomes, the criteria behind them, and the exponents behind those."""

from collections.abc import Iterable, Sequence

from symplectic_bench.analysis.claims import ClaimOutcome, ClaimResult, support, support_text
from symplectic_bench.analysis.criteria import CriterionOutcome, CriterionResult, Evaluation
from symplectic_bench.analysis.power_law import Exponent
from symplectic_bench.analysis.summary import Line
from symplectic_bench.report.numerals import MISSING, three_digits
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.criteria import measure_label

FEW = 4
"""The number of cell ids in a printed line; the CSV has all of them."""

# The CSV keeps its old column names, "trial" for a criterion and "ruling" for an outcome.


def claim_tables(claims: Sequence[ClaimResult], exponents: Sequence[Line], where: str) -> list[Table]:
    """Return the tables of a suite with claims. exponents are the lines of analysis.exponents."""
    tables = [claims_table(claims, where), criteria_table(claims, where)] if claims else []
    return [*tables, exponents_table(exponents, where)] if exponents else tables


def claims_table(claims: Sequence[ClaimResult], where: str) -> Table:
    """Return a line for each claim, with the outcome of each criterion."""
    caption = (
        "holds: all measured cells meet every criterion of the claim; fails: no cell meets any; holds when: some cells"
        " meet some criteria. measured: how many of the criteria were measured. The numbers are those of the list of"
        " claims; the criteria are in the next table."
    )
    data: list[Line] = []
    for result in claims:
        measured = sum(support(one) is not ClaimOutcome.NOT_MEASURED for one in result.criteria)
        data.append(
            {
                "point": result.claim.point,
                "claim": result.claim.name,
                "ruling": str(result.outcome),
                "measured": f"{measured} of {len(result.criteria)}",
                "trials": "; ".join(f"{one.criterion.name}: {support_text(one)}" for one in result.criteria),
                "cells": " ".join(_ids(evaluation for one in result.criteria for evaluation in one.evaluations)),
            }
        )
    shown = tuple(tuple(str(line[key]) for key in ("point", "claim", "ruling", "measured", "trials")) for line in data)
    headings = ("point", "claim", "outcome", "measured", "criteria")
    return Table("claims", "Claims", caption, where, headings, (Section("", shown),), tuple(data))


def criteria_table(claims: Sequence[ClaimResult], where: str) -> Table:
    """Return a section for each claim, with a line for each criterion."""
    caption = (
        "The range of the values measured for each criterion; exponents have their 95 % confidence intervals. Cells are"
        f" identified by the beginnings of their ids, {FEW} per line; the CSV has all."
    )
    sections, data = [], []
    for result in claims:
        lines = [_criterion_line(result, one) for one in result.criteria]
        keys = ("trial", "measured", "wanted", "met", "ruling", "few")
        shown = tuple(tuple(str(line[key]) for key in keys) for line in lines)
        sections.append(Section(f"{result.claim.point}. {result.claim.name}: {result.outcome}", shown))
        data += [{key: value for key, value in line.items() if key != "few"} for line in lines]
    headings = ("criterion", "measured", "limit", "met", "outcome", "cells")
    return Table("trials", "The criteria behind the claims", caption, where, headings, tuple(sections), tuple(data))


def _criterion_line(claim: ClaimResult, result: CriterionResult) -> Line:
    measured = [evaluation for evaluation in result.evaluations if evaluation.value is not None]
    ids = _ids(result.evaluations)
    reasons = dict.fromkeys(evaluation.note for evaluation in result.having(CriterionOutcome.NOT_MEASURED))
    return {
        "point": claim.claim.point,
        "claim": claim.claim.name,
        "trial": result.criterion.name,
        "measured": _range(measured) or "; ".join(reasons),
        "least": min(result.values, default=None),
        "largest": max(result.values, default=None),
        "wanted": result.criterion.limit,
        "met": f"{len(result.having(CriterionOutcome.MET))} of {len(measured)}",
        "ruling": support_text(result),
        "few": ", ".join(id[:6] for id in ids[:FEW]) + (f" and {len(ids) - FEW} more" if len(ids) > FEW else ""),
        "cells": " ".join(ids),
    }


def _range(measured: Sequence[Evaluation]) -> str:
    """Return the least and the largest value, separately for each axis if they are exponents."""
    of_axis: dict[str, list[Evaluation]] = {}
    for evaluation in sorted(measured, key=lambda evaluation: evaluation.value or 0.0):
        of_axis.setdefault(evaluation.axis if evaluation.half_width is not None else "", []).append(evaluation)
    return ", ".join(f"{axis} {_ends(some)}".lstrip() for axis, some in of_axis.items())


def _ends(ordered: Sequence[Evaluation]) -> str:
    return " to ".join(dict.fromkeys(_number(evaluation) for evaluation in (ordered[0], ordered[-1])))


def _number(evaluation: Evaluation) -> str:
    if evaluation.value is not None and evaluation.half_width is not None:
        return str(Exponent(evaluation.value, evaluation.half_width))
    return three_digits(evaluation.value)


def _ids(evaluations: Iterable[Evaluation]) -> list[str]:
    return list(dict.fromkeys(cell.id for evaluation in evaluations for cell in evaluation.cells))


def exponents_table(exponents: Sequence[Line], where: str) -> Table:
    """Return a section for each measure, with a line for each gradient and a column for each axis."""
    axes = list(dict.fromkeys(line["axis"] for line in exponents))
    sections = []
    for measure in dict.fromkeys(line["measure"] for line in exponents):
        found: dict[str, Line] = {}
        for line in exponents:
            if line["measure"] == measure:
                found.setdefault(line["name"], {})[line["axis"]] = Exponent(line["exponent"], line["half_width"])
        shown = [(name, *(str(of.get(axis, MISSING)) for axis in axes)) for name, of in found.items()]
        sections.append(Section(measure_label(measure), tuple(shown)))
    caption = (
        "The p of growth as x^p, fitted to the longest series of cells that differ only in x, with the 95 % confidence"
        " interval of the fit. The interval is wide if the quantity does not grow as a power of x."
    )
    return Table("exponents", "Exponents", caption, where, ("gradient", *axes), tuple(sections), tuple(exponents))
