"""report: write tables, figures and page of a suite from its rows."""

from typing import Annotated

import typer

from symplectic_bench.commands.options import ReportOptions, Suites, with_options
from symplectic_bench.commands.report_writing import EVERYTHING, write_reports
from symplectic_bench.html.suite_page import write_suite_page


@with_options(ReportOptions)
def report(
    options: ReportOptions,
    suites: Suites = None,
    html: Annotated[
        bool,
        typer.Option("--html", help="Also write results/<suite>/report.html, one file to explore in a browser."),
    ] = False,
) -> None:
    """Rewrite tables, figures and the page results/<suite>/README.md from the rows. Nothing is measured."""
    parts = (*EVERYTHING, write_suite_page) if html else EVERYTHING
    raise typer.Exit(write_reports(suites, options, *parts))
