"""tables, plots, report: what is made of rows. Nothing is measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symplectic_bench.analysis.claims import Hearing, Ruling, rule, when
from symplectic_bench.analysis.targets import headline, shortfalls
from symplectic_bench.analysis.trials import Judgement, Outcome
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
from symplectic_bench.spec.suite import Scale, Suite, Target, load_suite


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
            show_targets(publication.judgements)
            show_claims(publication.hearings)

    return for_each(suites, publish_suite)


def cells_with_targets(suite: Suite) -> list[Cell]:
    """All cells of a suite that has targets or claims, also those that cannot be measured here."""
    if not (suite.target or suite.claim):
        return []  # expanding imports torch
    return expand(suite, replace(load_vocabulary(suite.trains), decline=lambda cell: None))


COLORS = {Outcome.MET: "green", Outcome.NOT_MET: "red", Outcome.NOT_MEASURED: "yellow"}


def show_targets(judgements: Sequence[Judgement[Target]]) -> None:
    """A line a target; below it what misses it, and why some of it was not measured."""
    for judgement in judgements:
        color = COLORS[judgement.outcome]
        console.print(f"[{color}]{judgement.outcome:12}[/{color}] {escape(headline(judgement))}")
        for shortfall in shortfalls(judgement):
            console.print(f"{'':13}{escape(shortfall)}")


RULING_COLORS = {Ruling.HOLDS: "green", Ruling.HOLDS_WHEN: "cyan", Ruling.FAILS: "red", Ruling.OPEN: "yellow"}


def show_claims(hearings: Sequence[Hearing]) -> None:
    """A line a claim; below it one a trial, with what it takes."""
    for hearing in hearings:
        color = RULING_COLORS[hearing.ruling]
        console.print(f"[{color}]{hearing.ruling:12}[/{color}] {hearing.claim.point}. {escape(hearing.claim.name)}")
        for judgement in hearing.judgements:
            console.print(f"{'':13}{escape(f'{judgement.trial.name}: {rule(judgement)} {when(judgement)}'.rstrip())}")


def announce(paths: Sequence[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path.as_posix()}")
