"""Write the files of a suite's report, and summarize its targets and claims on the console."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.claims import ClaimOutcome, ClaimResult, shortfalls, support_text, target_headline
from symplectic_bench.analysis.criteria import CriterionOutcome
from symplectic_bench.analysis.overview import in_short
from symplectic_bench.commands.exit_codes import Exit, for_each
from symplectic_bench.commands.options import ReportOptions, sources
from symplectic_bench.report.suite_report import SuiteReport, choose_environment
from symplectic_bench.rows.environment import Environment
from symplectic_bench.run.console import console
from symplectic_bench.run.sweep import Plan, describe_problems, load_vocabulary
from symplectic_bench.spec.expansion import asked_questions, expand
from symplectic_bench.spec.suite import Suite
from symplectic_bench.spec.users_problem import suite_of

Part = Callable[[SuiteReport], list[Path]]

EVERYTHING: tuple[Part, ...] = (SuiteReport.write_tables, SuiteReport.write_plots, SuiteReport.write_page)


def write_reports(suites: Sequence[str] | None, options: ReportOptions, *parts: Part) -> Exit:
    """Write these parts of each suite's report from the rows of the environment that the options name."""

    def write_one(source: str) -> None:
        suite = suite_of(source, options.scale, options.problem)
        chosen = choose_environment(options.results / suite.name, options.environment)
        where, known = (options.scale, chosen, options.results, options.plots), known_of(suite)
        write_report(SuiteReport(suite, source, *where, **known, mix_machines=options.mix_machines), *parts)

    return for_each(sources(suites, options.problem), write_one)


def report_of(plan: Plan, environment: Environment, results: Path, plots: Path) -> SuiteReport:
    """Return the report on the rows that a plan was measured to in this environment."""
    id = environment.with_problems(plan.problems).id
    return SuiteReport(plan.suite, plan.source, plan.scale, id, results, plots, **known_of(plan.suite))


def write_report(report: SuiteReport, *parts: Part) -> None:
    """Write these parts of a report. If they include the tables, also print the suite's targets and claims."""
    announce([path for part in parts for path in part(report)])
    if SuiteReport.write_tables in parts:
        show_targets(report.targets)
        show_claims(report.claims)


def known_of(suite: Suite) -> dict[str, Any]:
    """Return what a report needs to know of the suite's cells, even of those that cannot be measured here.

    All cells of a suite that has targets or claims, and the questions of its blocks, as arguments of SuiteReport.
    """
    claimed, asks = suite.target or suite.claim, any(block.question for block in suite.block)
    if not (claimed or asks):
        return {}  # expanding imports torch
    vocabulary = load_vocabulary(suite.trains, describe_problems(suite))
    anywhere = replace(vocabulary, decline=lambda cell: None)
    cells = expand(suite, anywhere) if claimed else []
    return {"cells": cells, "questions": asked_questions(suite, anywhere) if asks else []}


def show_in_short(report: SuiteReport) -> None:
    """Print the three rows that most people look for, as multiples of torchdiffeq's odeint, and where the rest is."""
    for line in () if report.suite.trains else in_short(report.frame):
        console.print(line)
    console.print(f"all tables and figures: {(report.folder / 'README.md').as_posix()}")


TARGET_COLORS = {
    CriterionOutcome.MET: "green",
    CriterionOutcome.NOT_MET: "red",
    CriterionOutcome.NOT_MEASURED: "yellow",
}


def show_targets(targets: Sequence[ClaimResult]) -> None:
    """Print a line for each target and, below it, the cells that miss it and why others were not measured."""
    for target in targets:
        (result,) = target.criteria
        color = TARGET_COLORS[result.outcome]
        console.print(f"{result.outcome:12}", style=color, end=" ")
        console.print(target_headline(target))
        for shortfall in shortfalls(result):
            console.print(f"{'':13}{shortfall}")


CLAIM_COLORS = {
    ClaimOutcome.HOLDS: "green",
    ClaimOutcome.HOLDS_WHEN: "cyan",
    ClaimOutcome.FAILS: "red",
    ClaimOutcome.NOT_MEASURED: "yellow",
}


def show_claims(claims: Sequence[ClaimResult]) -> None:
    """Print a line for each claim and, below it, one for each criterion, with the condition under which it is met."""
    for result in claims:
        color = CLAIM_COLORS[result.outcome]
        console.print(f"{result.outcome:12}", style=color, end=" ")
        console.print(f"{result.claim.point}. {result.claim.name}")
        for one in result.criteria:
            console.print(f"{'':13}{one.criterion.name}: {support_text(one)}")


def announce(paths: Sequence[Path]) -> None:
    """Print the files written, one per line."""
    for path in paths:
        console.print(f"wrote {path.as_posix()}")
