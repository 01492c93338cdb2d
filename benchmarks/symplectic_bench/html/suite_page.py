"""A suite's report as one page that needs nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.claims import ClaimResult
from symplectic_bench.analysis.overview import overview
from symplectic_bench.analysis.summary import PAIRED, Line
from symplectic_bench.analysis.verdicts import Verdict
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.html.cell_data import cells_data
from symplectic_bench.html.chart_data import Places, figure_data, panel_data
from symplectic_bench.html.document import document
from symplectic_bench.html.failures import failures_table, statuses
from symplectic_bench.html.table_data import table_data
from symplectic_bench.report.columns import Column, texts
from symplectic_bench.report.comparisons import WRITTEN, statistics_words, with_verdicts, with_written_ratios
from symplectic_bench.report.figures import trade_offs
from symplectic_bench.report.numerals import count, text, three_digits
from symplectic_bench.report.panels import FigureSpec
from symplectic_bench.report.suite_report import SuiteReport
from symplectic_bench.report.typesetting import Section, Table

Part = dict[str, Any]

FIRST_TABLES = ("reached", "questions")
"""The tables that are verdicts themselves."""

CLAIM_TABLES = ("claims", "trials", "exponents")


def write_suite_page(report: SuiteReport) -> list[Path]:
    """Write the suite's report.html beside its README.md, and return the path."""
    page = suite_page(report, f"{report.command} --html")
    return [replace_text(report.folder / "report.html", document(report.suite.title, page))]


def suite_page(report: SuiteReport, command: str) -> dict[str, Any]:
    """Return the data of a suite's page: its sections in order, and its cells. `command` makes the page again."""
    tables = {table.name: table for table in report.tables}
    places = {line["cell_id"]: place for place, line in enumerate(report.lines)}
    first = [table_data(tables[name]) for name in FIRST_TABLES if name in tables]
    claims = [table_data(tables[name]) for name in CLAIM_TABLES if name in tables]
    others = [table_data(t) for name, t in tables.items() if name not in (*FIRST_TABLES, *CLAIM_TABLES)]
    figures = [figure for figure in report.figures if figure.name != "memory-time"]
    sections = [
        _section("verdicts", "Verdicts", [_tallies(report), *first, *_against_the_peer(report)]),
        _section("memory-time", "Memory against time", _scatter(report.lines, places)),
        *(_section(one.name, one.title, _figure(one, places)) for one in figures),
        _section("claims", "Claims", claims),
        _section("tables", "Tables", others),
        _section("failures", "Failed and skipped cells", [table_data(failures_table(report))]),
        _section("environment", "Environment", [_facts(machine) for machine in report.machines]),
    ]
    made = f"{report.where} Made from the stored rows by {command}."
    return {
        "title": report.suite.title,
        "lead": [" ".join(report.suite.description.split()), made],
        "sections": [section for section in sections if section["parts"]],
        **cells_data(report.lines),
    }


def _section(id: str, title: str, parts: Sequence[Part]) -> Part:
    return {"id": id, "title": title, "parts": list(parts)}


def _tallies(report: SuiteReport) -> Part:
    """Return how many targets are met, claims hold and so on, one line for each kind of verdict."""
    found: dict[str, Mapping[str, int]] = {
        "Targets": _outcomes(report.targets, lambda target: str(target.criteria[0].outcome)),
        "Claims": _outcomes(report.claims, lambda claim: str(claim.outcome)),
        "Comparisons with peers": _answers(report),
        "Cells": statuses(report),
    }
    lines = [[what, [[outcome, number] for outcome, number in some.items() if number]] for what, some in found.items()]
    return {"kind": "tallies", "lines": [line for line in lines if line[1]]}


def _outcomes(results: Sequence[ClaimResult], outcome: Any) -> Counter[str]:
    return Counter(outcome(result) for result in results)


def _answers(report: SuiteReport) -> Counter[str]:
    """Return how often ours is first, level, behind and so on, over all questions of the suite."""
    glances = [line for table in report.tables if table.name == "questions" for line in table.data]
    return Counter({str(verdict): sum(line[str(verdict)] for line in glances) for verdict in Verdict if glances})


JUDGED: tuple[Column, ...] = (
    ("gradient", "name", text),
    *((str(verdict), str(verdict), count) for verdict in (Verdict.FIRST, Verdict.LEVEL, Verdict.BEHIND)),
    (str(Verdict.NO_VERDICT), str(Verdict.NO_VERDICT), count),
    ("time x peer", f"{WRITTEN}mean_time_over_peer", text),
    ("memory x peer", "mean_memory_over_peer", three_digits),
    ("time x floor", f"{WRITTEN}mean_time_over_floor", text),
    ("memory x floor", "mean_memory_over_floor", three_digits),
)


def _against_the_peer(report: SuiteReport) -> list[Part]:
    """Return the table of verdicts by gradient; empty if questions give the verdicts, or nothing is compared."""
    judged = with_verdicts(report.lines)
    if report.questions or all(line["verdict"] is None for line in judged):
        return []
    found = {line["name"]: Counter[str]() for line in judged}
    for line in judged:
        found[line["name"]][str(line["verdict"])] += 1
    lines: list[Line] = []
    for line in overview(report.frame):
        counts = {str(verdict): found[line["name"]][str(verdict)] for verdict in Verdict}
        lines.append(with_written_ratios(line, [f"mean_{name}" for name in PAIRED]) | counts)
    lines = [line for line in lines if any(line[str(verdict)] for verdict in Verdict)]
    caption = (
        "In how many groups each gradient is first, level with torchdiffeq's odeint in time, or behind it, and the"
        f" geometric means of its ratios.{statistics_words(judged)}"
    )
    section = Section("", tuple(texts(line, JUDGED) for line in lines))
    headings = tuple(heading for heading, _, _ in JUDGED)
    data = tuple({key: line[key] for _, key, _ in JUDGED if not key.startswith(WRITTEN)} for line in lines)
    table = Table("verdicts", "Against torchdiffeq", caption, report.where, headings, (section,), data)
    return [table_data(table)]


def _scatter(lines: Sequence[Line], places: Places) -> list[Part]:
    """Return the groups to choose from, each with its panel; empty if no cell has both a time and a memory."""
    groups = [
        {
            "cells": [places[cell["cell_id"]] for cell in cells],
            **{axis: cells[0][axis] for axis in ("problem", "method", "dtype", "device", "group")},
            "panel": panel_data(panel, places),
        }
        for cells, panel in trade_offs(lines)
    ]
    caption = (
        "Lower left is better. The line is the Pareto front: each point on it is faster than every leaner one on it,"
        " by more than the interval of their ratio. Hollow markers are of other libraries. Choose a point, or a row of"
        " the table below, to pin it; of two pinned cells of a group the ratio is given."
    )
    shown = any(group["panel"]["series"] for group in groups)
    return [{"kind": "scatter", "caption": caption, "groups": groups}] if shown else []


def _figure(figure: FigureSpec, places: Places) -> list[Part]:
    fitted = _fitted(figure)
    return [figure_data(figure, places), *([table_data(fitted)] if fitted else [])]


def _fitted(figure: FigureSpec) -> Table | None:
    """Return the exponents fitted to the series of a figure of growth, None for another figure."""
    lines: list[Line] = [
        {
            "gradient": series.name,
            "of": f"{panel.y.label} over {panel.x.label}",
            "where": panel.identity,
            "exponent": str(series.power),
            "power": series.power.power,
            "half_width": series.power.half_width,
        }
        for panel in figure.panels
        for series in panel.series
        if series.power is not None
    ]
    if not lines:
        return None
    keys = ("gradient", "of", "where", "exponent")
    caption = "The p of growth as x^p, with the 95 % confidence interval of the fit, which is wide for a bent line."
    section = Section("", tuple(tuple(line[key] for key in keys) for line in lines))
    return Table(f"{figure.name}-exponents", "Fitted exponents", caption, "", keys, (section,), tuple(lines))


def _facts(machine: Mapping[str, Any]) -> Part:
    """Return the facts of an environment as pairs of words."""
    return {"kind": "facts", "lines": [[key.replace("_", " "), _words(value)] for key, value in machine.items()]}


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else "yes" if value is True else "no" if value is False else str(value)
