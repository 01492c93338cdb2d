"""report: write tables, figures and page of a suite from its rows."""

import typer

from symplectic_bench.commands.options import ReportOptions, Suites, with_options
from symplectic_bench.commands.report_writing import EVERYTHING, write_reports


@with_options(ReportOptions)
def report(options: ReportOptions, suites: Suites = None) -> None:
    """Rewrite tables, figures and the page results/<suite>/README.md from the rows. Nothing is measured."""
    raise typer.Exit(write_reports(suites, options, *EVERYTHING))
