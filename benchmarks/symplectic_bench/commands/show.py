"""tables, plots, report: what is made of rows. Nothing is measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symplectic_bench.analysis.claims import ClaimOutcome, ClaimResult, shortfalls, support_text, target_headline
from symplectic_bench.analysis.criteria import CriterionOutcome
from symplectic_bench.commands.exit_codes import Exit, console, for_each
from symplectic_bench.commands.options import (
    PLOTS,
    RESULTS,
    AtScale,
    EnvironmentId,
    MixMachines,
    Plots,
    Results,
    Suites,
)
from symplectic_bench.report.publication import Publication, choose_environment
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.suite import Scale, Suite, load_suite


def tables(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    environment: EnvironmentId = None,
    mix_machines: MixMachines = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write the rows too, as results/<suite>/rows.parquet.")
    ] = False,
    results: Results = RESULTS,
) -> None:
    """Write results/<suite>/tables again from the rows, as Markdown, CSV and LaTeX. Nothing is measured."""
    write = (Publication.write_tables, *([Publication.write_rows] if parquet else []))
    raise typer.Exit(publish(suites, scale, environment, mix_machines, results, PLOTS, *write))


def plots(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    environment: EnvironmentId = None,
    mix_machines: MixMachines = False,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
) -> None:
    """Write plots/<suite> again from the rows, as SVG and PNG. Nothing is measured."""
    raise typer.Exit(publish(suites, scale, environment, mix_machines, results, plots, Publication.write_plots))


def report(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    environment: EnvironmentId = None,
    mix_machines: MixMachines = False,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
) -> None:
    """Write tables, figures and the page results/<suite>/README.md again from the rows. Nothing is measured."""
    write = (Publication.write_tables, Publication.write_plots, Publication.write_page)
    raise typer.Exit(publish(suites, scale, environment, mix_machines, results, plots, *write))


def publish(
    suites: Sequence[str],
    scale: Scale,
    environment: str | None,
    mix_machines: bool,
    results: Path,
    plots: Path,
    *write: Callable[[Publication], list[Path]],
) -> Exit:
    def publish_suite(source: str) -> None:
        suite = load_suite(source).at_scale(scale)
        chosen = choose_environment(results / suite.name, environment)
        cells = cells_with_targets(suite)
        publication = Publication(suite, source, scale, chosen, results, plots, cells, mix_machines)
        announce([path for one in write for path in one(publication)])
        if Publication.write_tables in write:
            show_targets(publication.targets)
            show_claims(publication.claims)

    return for_each(suites, publish_suite)


def cells_with_targets(suite: Suite) -> list[Cell]:
    """All cells of a suite that has targets or claims, also those that cannot be measured here."""
    if not (suite.target or suite.claim):
        return []  # expanding imports torch
    return expand(suite, replace(load_vocabulary(suite.trains), decline=lambda cell: None))


TARGET_COLORS = {
    CriterionOutcome.MET: "green",
    CriterionOutcome.NOT_MET: "red",
    CriterionOutcome.NOT_MEASURED: "yellow",
}


def show_targets(targets: Sequence[ClaimResult]) -> None:
    """Print a line for each target; below it the cells that miss it, and why others were not measured."""
    for target in targets:
        (result,) = target.criteria
        color = TARGET_COLORS[result.outcome]
        console.print(f"[{color}]{result.outcome:12}[/{color}] {escape(target_headline(target))}")
        for shortfall in shortfalls(result):
            console.print(f"{'':13}{escape(shortfall)}")


CLAIM_COLORS = {
    ClaimOutcome.HOLDS: "green",
    ClaimOutcome.HOLDS_WHEN: "cyan",
    ClaimOutcome.FAILS: "red",
    ClaimOutcome.NOT_MEASURED: "yellow",
}


def show_claims(claims: Sequence[ClaimResult]) -> None:
    """Print a line for each claim; below it one for each criterion, with the condition it holds under."""
    for result in claims:
        color = CLAIM_COLORS[result.outcome]
        console.print(f"[{color}]{result.outcome:12}[/{color}] {result.claim.point}. {escape(result.claim.name)}")
        for one in result.criteria:
            console.print(f"{'':13}{escape(f'{one.criterion.name}: {support_text(one)}')}")


def announce(paths: Sequence[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path.as_posix()}")
