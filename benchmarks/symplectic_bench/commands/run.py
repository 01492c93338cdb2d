"""run: measure suites."""

from collections.abc import Sequence

import typer

from symplectic_bench.commands.exit_codes import Exit, for_each, worst
from symplectic_bench.commands.options import Suites, sources, with_options
from symplectic_bench.commands.report_writing import EVERYTHING, report_of, write_report
from symplectic_bench.rows.environment import capture
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import MAX_ATTEMPTS
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.cluster import ExecutorChoice, open_executor
from symplectic_bench.run.executors.executor import Executor
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.run.sweep import Plan, make_plan, sweep
from symplectic_bench.spec.status import Status


@with_options(RunOptions)
def run(options: RunOptions, suites: Suites = None) -> None:
    """Measure the cells that have no result yet, then write the tables, the figures and the report page.

    An interrupted run resumes where it stopped. Cells that ended in an error are retried a limited number of times.
    """
    plans: list[Plan] = []
    planned = for_each(sources(suites, options.problem), lambda suite: plans.append(make_plan(suite, options)))
    if planned is Exit.USAGE:  # a mistake in the last suite must show before the others are measured
        raise typer.Exit(planned)
    environment = capture()

    def measure(plan: Plan, executor: Executor) -> Exit:
        rows = sweep(plan, environment, executor, options.results, console)
        write_report(report_of(plan, environment, options.results, options.plots), *EVERYTHING)
        return exit_code_of(rows)

    def measure_all(choice: ExecutorChoice) -> Exit:
        with open_executor(choice, environment) as executor:
            return for_each(plans, lambda plan: measure(plan, executor))

    raise typer.Exit(worst([planned, for_each([options.executor_choice], measure_all)]))


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
