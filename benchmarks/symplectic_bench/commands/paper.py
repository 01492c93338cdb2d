"""paper: reproduce the paper's experiments."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer

from symplectic_bench.commands.exit_codes import Exit, for_each, worst
from symplectic_bench.commands.options import EnvironmentId, with_options
from symplectic_bench.commands.report_writing import announce
from symplectic_bench.commands.run import exit_code_of
from symplectic_bench.rows.environment import Environment, capture
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.cluster import ExecutorChoice, open_executor
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.run.sweep import Plan, make_plan, sweep
from symplectic_bench.spec.suggestion import suggestion

if TYPE_CHECKING:
    from symplectic_bench.paper.experiments import Experiment
    from symplectic_bench.paper.paper_report import PaperReport


@with_options(RunOptions, without=("only", "repeats", "problem"))
def paper(
    options: RunOptions,
    experiments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EXPERIMENT]...", help="Such as table2; by default all that have the scale."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Rewrite tables, figures and page without measuring.")] = False,
    environment: EnvironmentId = None,
) -> None:
    """Measure the paper's experiments and write its tables and figures: results/paper, plots/paper.

    An interrupted run resumes where it stopped, even in the middle of training. Stand-ins replace published data sets
    that are not in --data-dir, and every table says so.
    """
    # Imported here because it imports torch, which would slow down other commands by seconds.
    from symplectic_bench.paper.experiments import EXPERIMENTS, Experiment
    from symplectic_bench.paper.paper_report import PaperReport
    from symplectic_bench.report.page import Chapter

    at_scale = [experiment for experiment in EXPERIMENTS if options.scale in experiment.scales]
    chosen = choose_experiments(experiments, EXPERIMENTS, default=at_scale)
    refuse_unused_options(options, show, environment)
    report = PaperReport.within(options.scale, options.results, options.plots)
    plans = [] if show else make_plans(chosen, options)
    here = None if show else capture()
    shown = environment if here is None else here.id
    chapters: dict[str, Chapter] = {}

    def write_chapter(experiment: Experiment) -> None:
        chapters[experiment.name], paths = report.chapter(experiment, shown)
        announce(paths)

    if here is None:
        code = for_each(chosen, write_chapter)
    else:
        code = measure(list(zip(chosen, plans, strict=True)), options, here, report, write_chapter)

    def find_chapter(experiment: Experiment) -> None:
        chapter = chapters.get(experiment.name) or report.earlier_chapter(experiment, shown)
        if chapter is not None:
            known.append(chapter)

    def write_page(found: Sequence[Chapter]) -> None:
        announce(report.page(found))

    known: list[Chapter] = []
    found = for_each(at_scale, find_chapter)
    written = for_each([known] if known else [], write_page)
    raise typer.Exit(worst([code, found, written]))


def choose_experiments(
    names: Sequence[str] | None, every: Sequence["Experiment"], default: Sequence["Experiment"]
) -> list["Experiment"]:
    """Return the experiments with these names, or the default if none is named. An unknown name is bad usage."""
    known = {experiment.name: experiment for experiment in every}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        console.print(f"no experiment {unknown[0]!r}{suggestion(unknown[0], known)}", style="red")
        raise typer.Exit(Exit.USAGE)
    return [known[name] for name in names] if names else list(default)


def refuse_unused_options(options: RunOptions, show: bool, environment: str | None) -> None:
    """End with bad usage if an option would have no effect."""
    used_to_show = {"scale", "results", "plots"}
    given = [f.name for f in fields(options) if getattr(options, f.name) != f.default and f.name not in used_to_show]
    if show and given:
        flag = f"--{given[0].replace('_', '-')}"
        console.print(
            f"{flag} affects measurements, and --show measures nothing: leave out one of the two", style="red"
        )
    elif not show and environment is not None:
        console.print("--environment has an effect only with --show: add --show", style="red")
    else:
        return
    raise typer.Exit(Exit.USAGE)


def make_plans(experiments: Sequence["Experiment"], options: RunOptions) -> list[Plan]:
    """Return a plan for each experiment. If one cannot be planned, end the command before anything is measured."""
    plans: list[Plan] = []
    planned = for_each(experiments, lambda one: plans.append(make_plan(one.source, options)))
    if planned is not Exit.DONE:
        raise typer.Exit(planned)
    return plans


def measure(
    planned: Sequence[tuple["Experiment", Plan]],
    options: RunOptions,
    environment: Environment,
    report: "PaperReport",
    write_chapter: Callable[["Experiment"], None],
) -> Exit:
    """Measure the experiments one by one, writing each one's chapter as soon as it is done."""
    codes: list[Exit] = []

    def measure_all(choice: ExecutorChoice) -> None:
        with open_executor(choice, environment) as executor:

            def measure_one(plan: Plan) -> Exit:
                return exit_code_of(sweep(plan, environment, executor, report.rows, console, options.cache))

            for experiment, plan in planned:
                codes.append(for_each([plan], measure_one))
                codes.append(for_each([experiment], write_chapter))

    codes.append(for_each([options.executor_choice], measure_all))
    return worst(codes)
