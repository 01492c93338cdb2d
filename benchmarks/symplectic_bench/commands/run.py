"""run: measure suites."""

from collections.abc import Sequence

import typer

from symplectic_bench.commands.exit_codes import Exit, console, for_each, worst
from symplectic_bench.commands.options import (
    PLOTS,
    RESULTS,
    AtScale,
    Cluster,
    ClusterFile,
    DataDir,
    Device,
    Fresh,
    Only,
    Plots,
    Repeats,
    Results,
    Scheduler,
    Suites,
    TlsCa,
    TlsCert,
    TlsKey,
    place_of,
)
from symplectic_bench.commands.show import announce, cells_with_targets, show_claims, show_targets
from symplectic_bench.report.publication import Publication
from symplectic_bench.rows.environment import capture
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import MAX_ATTEMPTS
from symplectic_bench.run.executors.cluster import Place, Tls, executor_at
from symplectic_bench.run.executors.executor import Executor
from symplectic_bench.run.sweep import Plan, Wishes, make_plan, sweep
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale


def run(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    only: Only = None,
    device: Device = None,
    repeats: Repeats = None,
    fresh: Fresh = False,
    data_dir: DataDir = None,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    cluster: Cluster = None,
    cluster_options: ClusterFile = None,
) -> None:
    """Measure what is not measured yet, then write the tables, the figures and the report page.

    A run that was interrupted goes on where it stopped. An error is tried again, three times at most.
    """
    place = place_of(scheduler, Tls(tls_ca, tls_cert, tls_key), cluster, cluster_options)
    plans: list[Plan] = []
    wishes = Wishes(scale, only or [], device, repeats, fresh, data_dir)
    planned = for_each(suites, lambda suite: plans.append(make_plan(suite, wishes)))
    if planned is Exit.USAGE:  # a mistake in the last suite must not cost the time of the others
        raise typer.Exit(planned)
    environment = capture()

    def measure(plan: Plan, executor: Executor) -> Exit:
        rows = sweep(plan, environment, executor, results, console)
        publication = Publication(
            plan.suite, plan.source, scale, environment.id, results, plots, cells_with_targets(plan.suite)
        )
        announce(publication.write_tables() + publication.write_plots() + publication.write_page())
        show_targets(publication.targets)
        show_claims(publication.claims)
        return ending_of(rows)

    def measure_all(place: Place) -> Exit:
        with executor_at(place, environment) as executor:
            return for_each(plans, lambda plan: measure(plan, executor))

    raise typer.Exit(worst([planned, for_each([place], measure_all)]))


def ending_of(rows: Sequence[Measurement]) -> Exit:
    """Says how many cells ended in errors, if any did."""
    errors = sum(row.status is Status.ERROR for row in rows)
    if errors:
        console.print(
            f"[red]{errors} of {len(rows)} cells ended in an error of ours; run again to retry"
            f" ({MAX_ATTEMPTS} attempts at most)"
        )
    return Exit.FAILURE if errors else Exit.DONE
