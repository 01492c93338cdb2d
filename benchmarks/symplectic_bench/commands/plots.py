"""plots: draw a suite's figures from its rows."""

import typer

from symplectic_bench.commands.options import ReportOptions, Suites, with_options
from symplectic_bench.commands.report_writing import write_reports
from symplectic_bench.report.suite_report import SuiteReport


@with_options(ReportOptions)
def plots(options: ReportOptions, suites: Suites = None) -> None:
    """Redraw plots/<suite> from the rows, as SVG and PNG. Nothing is measured."""
    raise typer.Exit(write_reports(suites, options, SuiteReport.write_plots))
