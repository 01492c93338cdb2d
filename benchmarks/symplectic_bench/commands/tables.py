"""tables: write a suite's tables from its rows."""

from typing import Annotated

import typer

from symplectic_bench.commands.options import ReportOptions, Suites, with_options
from symplectic_bench.commands.report_writing import write_reports
from symplectic_bench.report.suite_report import SuiteReport


@with_options(ReportOptions, without=("plots",))
def tables(
    options: ReportOptions,
    suites: Suites = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Also write the rows, into results/<suite>, as rows.parquet.")
    ] = False,
) -> None:
    """Rewrite results/<suite>/tables from the rows, as Markdown, CSV and LaTeX. Nothing is measured."""
    rows = [SuiteReport.write_rows] if parquet else []
    raise typer.Exit(write_reports(suites, options, SuiteReport.write_tables, *rows))
