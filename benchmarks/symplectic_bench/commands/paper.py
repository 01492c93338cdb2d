"""paper: the paper's experiments."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated

import typer
from rich.markup import escape

from symplectic_bench.commands.exit_codes import Exit, console, for_each, worst
from symplectic_bench.commands.options import (
    PLOTS,
    RESULTS,
    AtScale,
    Cluster,
    ClusterFile,
    DataDir,
    Device,
    EnvironmentId,
    Fresh,
    Plots,
    Results,
    Scheduler,
    TlsCa,
    TlsCert,
    TlsKey,
    place_of,
)
from symplectic_bench.commands.run import ending_of
from symplectic_bench.commands.show import announce
from symplectic_bench.rows.environment import capture
from symplectic_bench.run.executors.cluster import Place, Tls, executor_at
from symplectic_bench.run.executors.executor import Executor
from symplectic_bench.run.sweep import Plan, Wishes, make_plan, sweep
from symplectic_bench.spec.suite import Scale, suggestion


def paper(
    experiments: Annotated[
        list[str] | None, typer.Argument(metavar="[EXPERIMENT]...", help="Some of them, such as table2; else all.")
    ] = None,
    scale: AtScale = Scale.CPU,
    device: Device = None,
    fresh: Fresh = False,
    show: Annotated[
        bool, typer.Option("--show", help="Write tables, figures and page again; measure nothing.")
    ] = False,
    data_dir: DataDir = None,
    environment: EnvironmentId = None,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    cluster: Cluster = None,
    cluster_options: ClusterFile = None,
) -> None:
    """Measure the paper's experiments anew and write its tables and figures: results/paper, plots/paper.

    A run that was interrupted goes on where it stopped, networks in training too. Without the published data sets
    (--data-dir) stand-ins take their places, and every table says so.
    """
    # Imported here because of portraits, which import torch: other commands should not take the seconds.
    from symplectic_bench.paper.edition import Edition
    from symplectic_bench.paper.experiments import EXPERIMENTS, Experiment
    from symplectic_bench.report.page import Chapter

    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    unknown = [name for name in experiments or [] if name not in known]
    if unknown:
        console.print(f"[red]no experiment {escape(repr(unknown[0]))}{escape(suggestion(unknown[0], known))}")
        raise typer.Exit(Exit.USAGE)
    chosen = [known[name] for name in experiments or known]
    elsewhere = {"--scheduler": scheduler, "--cluster": cluster}
    refuse_idle(show, {"--device": device, "--fresh": fresh or None, "--data-dir": data_dir} | elsewhere, environment)
    place = place_of(scheduler, Tls(tls_ca, tls_cert, tls_key), cluster, cluster_options)
    edition, wishes = Edition.within(scale, results, plots), Wishes(scale, (), device, None, fresh, data_dir)
    plans: list[Plan] = []
    if not show:
        planned = for_each(chosen, lambda one: plans.append(make_plan(one.source, wishes)))
        if planned is not Exit.DONE:
            raise typer.Exit(planned)
    here = None if show else capture()
    shown = environment if here is None else here.id

    def measure(plan: Plan, executor: Executor | None) -> Exit:
        assert here is not None and executor is not None
        rows = sweep(plan, here, executor, edition.rows, console, cache=results / ".cache")
        return ending_of(rows)

    chapters: dict[str, list[Chapter]] = {}

    def publish_one(experiment: Experiment) -> None:
        chapter, paths = edition.chapter(experiment, shown)
        chapters[experiment.name] = [chapter]
        announce(paths)

    codes = []

    def measure_all(place: Place) -> None:
        with nullcontext(None) if here is None else executor_at(place, here) as executor:
            for i, experiment in enumerate(chosen):
                codes.append(for_each(plans[i : i + 1], lambda plan: measure(plan, executor)))
                codes.append(for_each([experiment], publish_one))

    codes.append(for_each([place], measure_all))
    every = [chapter for one in EXPERIMENTS for chapter in chapters.get(one.name) or edition.known(one, shown)]
    if every:
        announce(edition.page(every))
    raise typer.Exit(worst(codes))


def refuse_idle(show: bool, of_measuring: Mapping[str, object], environment: str | None) -> None:
    """Options that would change nothing are bad usage."""
    given = [name for name, value in of_measuring.items() if value is not None]
    if show and given:
        console.print(f"[red]{given[0]} measures, which --show does not: leave out one of the two")
    elif not show and environment is not None:
        console.print("[red]--environment chooses what --show shows: add --show")
    else:
        return
    raise typer.Exit(Exit.USAGE)
