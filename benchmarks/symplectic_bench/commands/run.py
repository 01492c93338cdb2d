"""run: measure suites, or say what would be measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from symplectic_bench.commands.exit_codes import Exit, for_each, worst
from symplectic_bench.commands.options import Suites, sources, with_options
from symplectic_bench.commands.report_writing import EVERYTHING, report_of, show_in_short, write_report
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.rows.environment import Environment, capture
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import MAX_ATTEMPTS
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.cluster import ExecutorChoice, open_executor
from symplectic_bench.run.executors.executor import Executor
from symplectic_bench.run.preview import preview, preview_lines
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.run.sweep import Plan, make_plan, sweep
from symplectic_bench.spec.status import Status


@with_options(RunOptions)
def run(
    options: RunOptions,
    suites: Suites = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only list the cells to measure, and the time they took the last time."),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the rows here, or the cells of a dry run.", dir_okay=False),
    ] = None,
) -> None:
    """Measure the cells that have no result yet, then write the tables, the figures and the report page.

    An interrupted run resumes where it stopped. Cells that ended in an error are retried a limited number of times.
    A first look: run quick --scale smoke. Before a long run: add --dry-run. A part of it: add --only gradient=aca.
    """
    plans: list[Plan] = []
    planned = for_each(sources(suites, options.problem), lambda suite: plans.append(make_plan(suite, options)))
    if planned is Exit.USAGE:  # a mistake in the last suite must show before the others are measured
        raise typer.Exit(planned)
    environment = capture()
    written: list[dict[str, Any]] = []

    def measure(plan: Plan, executor: Executor) -> Exit:
        rows = sweep(plan, environment, executor, options.results, console)
        report = report_of(plan, environment, options.results, options.plots)
        write_report(report, *EVERYTHING)
        show_in_short(report)
        written.append({"suite": plan.suite.name, "rows": [row.to_json() for row in rows]})
        return exit_code_of(rows)

    def measure_all(choice: ExecutorChoice) -> Exit:
        with open_executor(choice, environment) as executor:
            return for_each(plans, lambda plan: measure(plan, executor))

    if dry_run:
        done = for_each(plans, lambda plan: written.append(show_plan(plan, environment, options.results)))
    else:
        done = for_each([options.executor_choice], measure_all)
    saved = for_each([] if file is None else [file], lambda path: write_json(path, written))
    raise typer.Exit(worst([planned, done, saved]))


def show_plan(plan: Plan, environment: Environment, results: Path) -> dict[str, Any]:
    """Print the cells that the plan would measure, in groups, and return all of its cells as plain values."""
    cells = preview(plan, environment, results)
    console.print(f"{plan.suite.name}: {sum(one.to_do for one in cells)} of {len(cells)} cells to measure")
    for line in preview_lines(cells):
        console.print(line)
    shown = [
        {"cell_id": one.cell.id, "group": one.cell.group_label, "name": one.cell.name}
        | {"to_do": one.to_do, "last_s": one.last_s}
        for one in cells
    ]
    return {"suite": plan.suite.name, "cells": shown}


def write_json(path: Path, suites: Sequence[dict[str, Any]]) -> None:
    """Write what was measured or planned, and say so."""
    replace_text(path, json.dumps({"suites": suites}, indent=1, allow_nan=False) + "\n")
    console.print(f"wrote {path.as_posix()}")


def exit_code_of(rows: Sequence[Measurement]) -> Exit:
    """Return Exit.FAILURE, and print how many cells ended in errors, if any did."""
    errors = sum(row.status is Status.ERROR for row in rows)
    if errors:
        console.print(
            f"{errors} of {len(rows)} cells ended in an internal error; run again to retry"
            f" ({MAX_ATTEMPTS} attempts at most)",
            style="red",
        )
    return Exit.FAILURE if errors else Exit.DONE
