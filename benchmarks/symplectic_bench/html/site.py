"""A folder of pages for any web host: one for each suite and environment, with the suite's history, and an index."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.history import Run
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.html.document import LIBRARY_FILE, document, library_text
from symplectic_bench.html.failures import statuses
from symplectic_bench.html.history_data import history_section, run_label
from symplectic_bench.html.suite_page import suite_page
from symplectic_bench.html.table_data import table_data
from symplectic_bench.report.numerals import count_of
from symplectic_bench.report.suite_report import SuiteReport
from symplectic_bench.report.typesetting import Section, Table

TITLE = "Gradients of neural ODEs, measured"

Reports = Sequence[SuiteReport]
"""The reports on one suite, one for each environment, newest first."""


def write_site(suites: Sequence[Reports], folder: Path) -> list[Path]:
    """Write index.html, the library and the pages of all suites into the folder, and return the paths.

    The pages of a suite are in a folder called like it: index.html for the newest run, and one for each environment.
    """
    paths = [path for reports in suites for path in _write_suite(reports, folder / reports[0].suite.name)]
    library = replace_text(folder / LIBRARY_FILE, library_text())
    index = replace_text(folder / "index.html", document(TITLE, _index(suites), library=""))
    return [index, library, *paths]


def _write_suite(reports: Reports, folder: Path) -> list[Path]:
    history = history_section([_run(report) for report in reversed(reports)])
    history["parts"].append({"kind": "links", "links": [_link(report) for report in reports]})
    paths = []
    for place, report in enumerate(reports):
        page = suite_page(report, "symplectic-bench site")
        page["sections"].insert(1, history)
        text = document(report.suite.title, page | {"back": "../index.html"}, library=f"../{LIBRARY_FILE}")
        names = [f"{report.environment_id}.html", *(["index.html"] if place == 0 else [])]
        paths += [replace_text(folder / name, text) for name in names]
    return paths


def _run(report: SuiteReport) -> Run:
    return Run(report.own_machine, report.rows)


def _link(report: SuiteReport) -> list[str]:
    run = _run(report)
    return [f"{report.environment_id}.html", run_label(run), run.machine]


def _index(suites: Sequence[Reports]) -> dict[str, Any]:
    """Return the data of the page that lists the suites."""
    links = [[f"{one[0].suite.name}/index.html", one[0].suite.title, f"({_summary(one)})"] for one in suites]
    return {
        "title": TITLE,
        "lead": ["The newest run of each suite, and its history over commits and machines."],
        "sections": [
            {"id": "suites", "title": "Suites", "parts": [{"kind": "links", "links": links}]},
            {"id": "runs", "title": "Runs", "parts": [table_data(_runs_table(suites))]},
        ],
    }


def _summary(reports: Reports) -> str:
    return f"{reports[0].suite.name}: {count_of(len(reports), 'run')}, {run_label(_run(reports[0]))}"


def _runs_table(suites: Sequence[Reports]) -> Table:
    keys = ("suite", "run", "machine", "cells")
    data = [
        {
            "suite": report.suite.name,
            "run": run_label(_run(report)),
            "machine": _run(report).machine,
            "cells": _ends(report),
        }
        for reports in suites
        for report in reports
    ]
    section = Section("", tuple(tuple(line[key] for key in keys) for line in data))
    caption = "Every run of every suite, and how its cells ended."
    return Table("all-runs", "All runs", caption, "", keys, (section,), tuple(data))


def _ends(report: SuiteReport) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in statuses(report).items() if number)
