"""Claims as tables: the ruling on each, the trials behind it, and the exponents behind those."""

from collections.abc import Iterable, Sequence

from symplectic_bench.analysis.claims import Hearing, Ruling, rule, when, words
from symplectic_bench.analysis.exponent import Exponent
from symplectic_bench.analysis.summary import Line
from symplectic_bench.analysis.trials import Judgement, Outcome, Verdict
from symplectic_bench.report.numerals import MISSING, three_digits
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.suite import Trial

FEW = 4
"""Cell ids that a printed line holds; all of them are in the CSV."""


def claim_tables(hearings: Sequence[Hearing], exponents: Sequence[Line], where: str) -> list[Table]:
    """None where the suite has no claims. exponents are the lines of claims.exponents."""
    tables = [claims_table(hearings, where), trials_table(hearings, where)] if hearings else []
    return [*tables, exponents_table(exponents, where)] if exponents else tables


def claims_table(hearings: Sequence[Hearing], where: str) -> Table:
    caption = (
        "holds: every trial of the claim is met by all its cells that were measured; fails: none is met by any; holds"
        " when: some are met by some. measured: how many of the trials were. The numbers are those of the list of"
        " claims; the trials are in the next table."
    )
    data: list[Line] = []
    for hearing in hearings:
        told = [f"{one.trial.name}: {rule(one)}{_condition(one)}" for one in hearing.judgements]
        data.append(
            {
                "point": hearing.claim.point,
                "claim": hearing.claim.name,
                "ruling": str(hearing.ruling),
                "measured": f"{sum(rule(one) is not Ruling.OPEN for one in hearing.judgements)} of {len(told)}",
                "trials": "; ".join(told),
                "cells": " ".join(_ids(verdict for one in hearing.judgements for verdict in one.verdicts)),
            }
        )
    headings = ("point", "claim", "ruling", "measured", "trials")
    shown = tuple(tuple(str(line[key]) for key in headings) for line in data)
    return Table("claims", "Claims on trial", caption, where, headings, (Section("", shown),), tuple(data))


def _condition(judgement: Judgement[Trial]) -> str:
    condition = when(judgement)
    return f" {condition}" if condition else ""


def trials_table(hearings: Sequence[Hearing], where: str) -> Table:
    caption = (
        "What each trial measured, from the least to the largest of its cells; an exponent of a growth stands with its"
        f" 95 % confidence interval. Cells are named by the beginnings of their ids, {FEW} a line; the CSV has all."
    )
    sections, data = [], []
    for hearing in hearings:
        lines = [_trial_line(hearing, judgement) for judgement in hearing.judgements]
        shown = [
            tuple(str(line[key]) for key in ("trial", "measured", "wanted", "met", "ruling", "few")) for line in lines
        ]
        sections.append(Section(f"{hearing.claim.point}. {hearing.claim.name}: {hearing.ruling}", tuple(shown)))
        data += [{key: value for key, value in line.items() if key != "few"} for line in lines]
    headings = ("trial", "measured", "wanted", "met", "ruling", "cells")
    return Table("trials", "The trials behind the claims", caption, where, headings, tuple(sections), tuple(data))


def _trial_line(hearing: Hearing, judgement: Judgement[Trial]) -> Line:
    measured = [verdict for verdict in judgement.verdicts if verdict.measured is not None]
    met = judgement.count(Outcome.MET)
    ids = _ids(judgement.verdicts)
    open_ = dict.fromkeys(v.note for v in judgement.verdicts if v.measured is None)
    return {
        "point": hearing.claim.point,
        "claim": hearing.claim.name,
        "trial": judgement.trial.name,
        "measured": _range(measured) or "; ".join(open_),
        "least": min(judgement.measured, default=None),
        "largest": max(judgement.measured, default=None),
        "wanted": judgement.trial.wanted,
        "met": f"{met} of {len(measured)}",
        "ruling": f"{rule(judgement)}{_condition(judgement)}",
        "few": ", ".join(id[:6] for id in ids[:FEW]) + (f" and {len(ids) - FEW} more" if len(ids) > FEW else ""),
        "cells": " ".join(ids),
    }


def _range(verdicts: Sequence[Verdict]) -> str:
    """From the least to the largest, of each axis where there are exponents."""
    of_axis: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.measured or 0.0):
        of_axis.setdefault(verdict.axis if verdict.half_width is not None else "", []).append(verdict)
    return ", ".join(f"{axis} {_ends(some)}".lstrip() for axis, some in of_axis.items())


def _ends(ordered: Sequence[Verdict]) -> str:
    return " to ".join(dict.fromkeys(_number(verdict) for verdict in (ordered[0], ordered[-1])))


def _number(verdict: Verdict) -> str:
    if verdict.measured is not None and verdict.half_width is not None:
        return str(Exponent(verdict.measured, verdict.half_width))
    return three_digits(verdict.measured)


def _ids(verdicts: Iterable[Verdict]) -> list[str]:
    return list(dict.fromkeys(cell.id for verdict in verdicts for cell in verdict.cells))


def exponents_table(exponents: Sequence[Line], where: str) -> Table:
    axes = list(dict.fromkeys(line["axis"] for line in exponents))
    sections = []
    for measure in dict.fromkeys(line["measure"] for line in exponents):
        found: dict[str, Line] = {}
        for line in exponents:
            if line["measure"] == measure:
                found.setdefault(line["name"], {})[line["axis"]] = Exponent(line["exponent"], line["half_width"])
        shown = [(name, *(str(of.get(axis, MISSING)) for axis in axes)) for name, of in found.items()]
        sections.append(Section(words(measure), tuple(shown)))
    caption = (
        "The p of a growth like x^p, fitted to the longest series of cells in which x alone differs, with the 95 %"
        " confidence interval of the fit. What does not grow with x bends the line, and widens the interval."
    )
    return Table("exponents", "Exponents", caption, where, ("gradient", *axes), tuple(sections), tuple(exponents))
