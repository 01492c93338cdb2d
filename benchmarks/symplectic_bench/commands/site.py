"""site: write a folder of pages, one for each suite and run, with the history of each suite."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.commands.exit_codes import for_each, worst
from symplectic_bench.commands.options import ReportOptions, Suites, with_options
from symplectic_bench.commands.report_writing import announce, known_of
from symplectic_bench.html.site import Reports, write_site
from symplectic_bench.report.suite_report import NoRows, SuiteReport
from symplectic_bench.rows.store import environment_ids
from symplectic_bench.spec.suite import SUITES, Scale, load_suite, suite_names


@with_options(ReportOptions, without=("scale", "problem", "environment"))
def site(
    options: ReportOptions,
    suites: Suites = None,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder of the pages.")] = Path("site"),
) -> None:
    """Write pages of all suites that have rows, or of those given, with their history over commits and machines.

    The pages are those of report --html, in a folder that any web host serves and that can be opened from disk.
    Nothing is measured.
    """
    found: list[Reports] = []
    code = for_each(suites or all_sources(), lambda source: found.extend(reports_of(source, options)))
    written = for_each([found], lambda reports: announce(write(reports, to, options.results)))
    raise typer.Exit(worst([code, written]))


def all_sources() -> Sequence[str]:
    """Return the suites of this package, the paper's after the others."""
    return [*suite_names(), *(str(path) for path in sorted((SUITES / "paper").glob("*.toml")))]


def reports_of(source: str, options: ReportOptions) -> Iterator[Reports]:
    """Yield the reports on a suite at each of its scales that has rows, newest environment first."""
    whole = load_suite(source)
    for scale in whole.scales:
        suite, results = whole.at_scale(scale), rows_folder(source, scale, options.results)
        ids = environment_ids(results / suite.name)
        known = known_of(suite) if ids else {}
        shared = {"results": results, "plots": options.plots, "mix_machines": options.mix_machines} | known
        if ids:
            yield [SuiteReport(suite, source, scale, id, **shared) for id in ids]


def rows_folder(source: str, scale: Scale, results: Path) -> Path:
    """Return the folder with the suite's folder of rows: the paper's experiments share one for each scale."""
    if Path(source).resolve().parent != (SUITES / "paper").resolve():
        return results
    # Imported here because it imports torch, which would slow down other commands by seconds.
    from symplectic_bench.paper.paper_report import PaperReport

    return PaperReport.within(scale, results, results).rows


def write(reports: Sequence[Reports], to: Path, results: Path) -> list[Path]:
    """Write the site. Raise NoRows if there is nothing to show."""
    if not reports:
        raise NoRows(f"no rows in {results.as_posix()}: measure them with symplectic-bench run")
    return write_site(reports, to)
