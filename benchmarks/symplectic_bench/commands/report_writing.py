"""Write the files of a suite's report, and summarize its targets and claims on the console."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from symplectic_bench.analysis.claims import Hearing, Ruling, rule, when
from symplectic_bench.analysis.targets import headline, shortfalls
from symplectic_bench.analysis.trials import Judgement, Outcome
from symplectic_bench.commands.exit_codes import Exit, console, for_each
from symplectic_bench.commands.options import ReportOptions
from symplectic_bench.report.suite_report import SuiteReport, choose_environment
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.suite import Suite, Target, load_suite

Part = Callable[[SuiteReport], list[Path]]

EVERYTHING: tuple[Part, ...] = (SuiteReport.write_tables, SuiteReport.write_plots, SuiteReport.write_page)


def write_reports(suites: Sequence[str], options: ReportOptions, *parts: Part) -> Exit:
    """Write these parts of each suite's report from the rows of the environment that the options name."""

    def write_one(source: str) -> None:
        suite = load_suite(source).at_scale(options.scale)
        chosen = choose_environment(options.results / suite.name, options.environment)
        folders, cells = (options.results, options.plots), cells_with_targets(suite)
        write_report(SuiteReport(suite, source, options.scale, chosen, *folders, cells, options.mix_machines), *parts)

    return for_each(suites, write_one)


def write_report(report: SuiteReport, *parts: Part) -> None:
    """Write these parts of a report; with its tables, show the suite's targets and claims too."""
    announce([path for part in parts for path in part(report)])
    if SuiteReport.write_tables in parts:
        show_targets(report.judgements)
        show_claims(report.hearings)


def cells_with_targets(suite: Suite) -> list[Cell]:
    """Return all cells of a suite that has targets or claims, even those that cannot be measured here."""
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
    """Print the files written, one a line."""
    for path in paths:
        console.print(f"wrote {path.as_posix()}")
