"""The command line: run, tables, plots, report, check, list."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks.cell import Cell
from benchmarks.claims import Hearing, Ruling, rule, when
from benchmarks.environment import capture
from benchmarks.expansion import NothingLeft, expand
from benchmarks.publication import NoRows, Publication, UnknownEnvironment, choose_environment
from benchmarks.record import Measurement, Status, UnreadableRow
from benchmarks.regression import BaselineMissing, UnfitForBaseline, compare, read_baseline, unrecorded, write_baseline
from benchmarks.store import MAX_ATTEMPTS, StoreError, read_rows
from benchmarks.suite import Scale, Suite, SuiteError, Target, load_suite, suggestion, suite_names
from benchmarks.sweep import Plan, Wishes, load_vocabulary, make_plan, sweep
from benchmarks.targets import headline, shortfalls
from benchmarks.trials import Judgement, Outcome

console = Console(soft_wrap=True, highlight=False)


class Exit(IntEnum):
    """What the command's exit code says."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    REGRESSION = 3
    NOTHING_RAN = 4
    BASELINE_MISSING = 5


GRAVITY = (Exit.USAGE, Exit.FAILURE, Exit.BASELINE_MISSING, Exit.NOTHING_RAN, Exit.REGRESSION, Exit.DONE)
"""Where suites end differently, the first of these that one of them has is the exit code."""

ENDINGS: dict[type[Exception], Exit] = {
    SuiteError: Exit.USAGE,
    UnknownEnvironment: Exit.USAGE,
    NothingLeft: Exit.NOTHING_RAN,
    NoRows: Exit.NOTHING_RAN,
    BaselineMissing: Exit.BASELINE_MISSING,
    StoreError: Exit.FAILURE,
    UnreadableRow: Exit.FAILURE,
    UnfitForBaseline: Exit.FAILURE,
}
"""Errors that a sentence explains. Any other is a bug of ours and shows its traceback."""

app = typer.Typer(
    name="symplectic-bench",
    help="Measures every way of computing the gradient of a neural ODE: its error, its time, its memory.",
    epilog="Exit codes: 0 done (skipped, timed-out and diverged cells are results), 1 a failure of ours, "
    "2 bad usage or suite file, 3 regression, 4 nothing ran, 5 baseline missing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Suites = Annotated[list[str], typer.Argument(metavar="SUITE", help="Names (see list) or .toml files.")]
AtScale = Annotated[Scale, typer.Option(help="Size: the suite's own (cpu), seconds (smoke), a GPU's (gpu).")]
Results = Annotated[Path, typer.Option(help="Folder of rows and tables.", file_okay=False)]
Plots = Annotated[Path, typer.Option(help="Folder of figures.", file_okay=False)]
EnvironmentId = Annotated[
    str | None, typer.Option(metavar="ID", help="Which environment's rows; by default the newest.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AXIS=VALUE[,VALUE]",
        help="Only the cells with one of these values of an axis: problem, gradient, rtol, a size, ... Repeatable.",
    ),
]
Device = Annotated[str | None, typer.Option(help="Measure on this device (cpu, cuda), whatever the suite says.")]
Repeats = Annotated[int | None, typer.Option(min=1, help="Timed runs a cell, whatever the suite says.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the published data sets, for suites that train; else stand-ins.", file_okay=False),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure anew; the rows replace the old ones at the end.")]

RESULTS, PLOTS, BASELINE = Path("results"), Path("plots"), Path("results/baseline")


@app.command()
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
) -> None:
    """Measure what is not measured yet, then write the tables, the figures and the report page.

    A run that was interrupted goes on where it stopped. An error is tried again, three times at most.
    """
    plans: list[Plan] = []
    wishes = Wishes(scale, only or [], device, repeats, fresh, data_dir)
    planned = for_each(suites, lambda suite: plans.append(make_plan(suite, wishes)))
    if planned is Exit.USAGE:  # a mistake in the last suite must not cost the time of the others
        raise typer.Exit(planned)
    environment = capture()

    def measure(plan: Plan) -> Exit:
        rows = sweep(plan, environment, results, console)
        publication = Publication(
            plan.suite, plan.source, scale, environment.id, results, plots, cells_with_targets(plan.suite)
        )
        announce(publication.write_tables() + publication.write_plots() + publication.write_page())
        show_targets(publication.judgements)
        show_claims(publication.hearings)
        return ending_of(rows)

    raise typer.Exit(worst([planned, for_each(plans, measure)]))


@app.command()
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
) -> None:
    """Measure the paper's experiments anew and write its tables and figures: results/paper, plots/paper.

    A run that was interrupted goes on where it stopped, networks in training too. Without the published data sets
    (--data-dir) stand-ins take their places, and every table says so.
    """
    # Imported here because of portraits, which import torch: other commands should not take the seconds.
    from benchmarks.page import Chapter
    from benchmarks.paper.edition import Edition
    from benchmarks.paper.experiments import EXPERIMENTS, Experiment

    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    unknown = [name for name in experiments or [] if name not in known]
    if unknown:
        console.print(f"[red]no experiment {escape(repr(unknown[0]))}{escape(suggestion(unknown[0], known))}")
        raise typer.Exit(Exit.USAGE)
    chosen = [known[name] for name in experiments or known]
    refuse_idle(show, {"--device": device, "--fresh": fresh or None, "--data-dir": data_dir}, environment)
    edition, wishes = Edition.within(scale, results, plots), Wishes(scale, (), device, None, fresh, data_dir)
    plans: list[Plan] = []
    if not show:
        planned = for_each(chosen, lambda one: plans.append(make_plan(one.source, wishes)))
        if planned is not Exit.DONE:
            raise typer.Exit(planned)
    here = None if show else capture()
    shown = environment if here is None else here.id

    def measure(plan: Plan) -> Exit:
        assert here is not None
        rows = sweep(plan, here, edition.rows, console, cache=results / ".cache")
        return ending_of(rows)

    chapters: dict[str, list[Chapter]] = {}

    def publish_one(experiment: Experiment) -> None:
        chapter, paths = edition.chapter(experiment, shown)
        chapters[experiment.name] = [chapter]
        announce(paths)

    codes = []
    for i, experiment in enumerate(chosen):
        codes += [for_each(plans[i : i + 1], measure), for_each([experiment], publish_one)]
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


def ending_of(rows: Sequence[Measurement]) -> Exit:
    """Says how many cells ended in errors, if any did."""
    errors = sum(row.status is Status.ERROR for row in rows)
    if errors:
        console.print(
            f"[red]{errors} of {len(rows)} cells ended in an error of ours; run again to retry"
            f" ({MAX_ATTEMPTS} attempts at most)"
        )
    return Exit.FAILURE if errors else Exit.DONE


@app.command()
def tables(
    suites: Suites, scale: AtScale = Scale.CPU, environment: EnvironmentId = None, results: Results = RESULTS
) -> None:
    """Write results/<suite>/tables again from the rows, as Markdown, CSV and LaTeX. Nothing is measured."""
    raise typer.Exit(publish(suites, scale, environment, results, PLOTS, Publication.write_tables))


@app.command()
def plots(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    environment: EnvironmentId = None,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
) -> None:
    """Write plots/<suite> again from the rows, as SVG and PNG. Nothing is measured."""
    raise typer.Exit(publish(suites, scale, environment, results, plots, Publication.write_plots))


@app.command()
def report(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    environment: EnvironmentId = None,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
) -> None:
    """Write tables, figures and the page results/<suite>/README.md again from the rows. Nothing is measured."""
    write = (Publication.write_tables, Publication.write_plots, Publication.write_page)
    raise typer.Exit(publish(suites, scale, environment, results, plots, *write))


@app.command()
def check(
    suites: Suites,
    scale: AtScale = Scale.CPU,
    environment: Annotated[
        str | None, typer.Option(metavar="ID", help="Which environment's rows; by default this machine's and code's.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Make these rows the baseline.")] = False,
    baseline: Annotated[Path, typer.Option(help="Folder of baselines.", file_okay=False)] = BASELINE,
    results: Results = RESULTS,
) -> None:
    """Compare the deterministic counters, memory and errors of what was measured here with the baseline.

    Rows measured elsewhere, or with other code, do not count: run the suite first.
    """
    here = environment or capture().id

    def compare_suite(source: str) -> Exit:
        suite = load_suite(source).at_scale(scale)
        path = baseline / f"{suite.name}.jsonl"
        rows = read_rows(results / suite.name / here / "rows.jsonl").rows
        if not rows:
            raise NoRows(f"{suite.name}: no rows of environment {here} to check: run the suite first")
        if update:
            cells = {cell.id: cell for cell in expand(suite, load_vocabulary(suite.trains))}
            write_baseline(path, [row for row in rows if row.cell_id in cells], whole=len(cells))
            console.print(f"{suite.name}: {len(cells)} cells are now the baseline, {path.as_posix()}")
            return Exit.DONE
        lines = read_baseline(path)
        findings = compare(rows, lines)
        for finding in findings:
            console.print(f"[red]{escape(str(finding))}")
        new = unrecorded(rows, lines)
        console.print(
            f"{suite.name}: {len(lines)} cells of the baseline compared, {len(findings)} differences"
            + (f"; {new} cells are not in it, check --update records them" if new else "")
        )
        return Exit.REGRESSION if findings else Exit.DONE

    raise typer.Exit(for_each(suites, compare_suite))


@app.command("list")
def list_() -> None:
    """Show the suites, problems with their sizes, methods, gradients and contenders that there are."""
    # Imported here because they import torch, which takes seconds that other commands should not.
    from benchmarks.contenders import CONTENDERS

    vocabulary, tasks = load_vocabulary(), load_vocabulary(trains=True)
    loaded = {name: load_suite(name) for name in suite_names()}
    heading(
        "Suites", [f"{name}: {suite.title} (scales {', '.join(scales(suite.scale))})" for name, suite in loaded.items()]
    )
    for title, families in (("Problems", vocabulary.problems), ("Tasks, for suites that train", tasks.problems)):
        described = [f"{name}: {', '.join(f'{k}={v}' for k, v in sizes.items())}" for name, sizes in families.items()]
        heading(f"{title}, with their sizes' defaults", described)
    heading("Methods", [", ".join(vocabulary.methods)])
    rivals = [
        f"{name}: {', '.join(contender.gradients)}" + (f" ({missing})" if (missing := contender.missing()) else "")
        for name, contender in CONTENDERS.items()
    ]
    heading("Contenders, with their gradients", rivals)


def scales(given: Iterable[Scale]) -> list[str]:
    return [scale.value for scale in Scale if scale in (Scale.CPU, *given)]


def heading(title: str, lines: Sequence[str]) -> None:
    console.print(f"[bold]{title}")
    for line in lines:
        console.print(f"  {escape(line)}")


def publish(
    suites: Sequence[str],
    scale: Scale,
    environment: str | None,
    results: Path,
    plots: Path,
    *write: Callable[[Publication], list[Path]],
) -> Exit:
    def publish_suite(source: str) -> None:
        suite = load_suite(source).at_scale(scale)
        chosen = choose_environment(results / suite.name, environment)
        publication = Publication(suite, source, scale, chosen, results, plots, cells_with_targets(suite))
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


T = TypeVar("T")


def for_each(items: Iterable[T], action: Callable[[T], Exit | None]) -> Exit:
    """Does the action for every item, says what went wrong with one, and returns the gravest ending."""
    codes = []
    for item in items:
        try:
            codes.append(action(item) or Exit.DONE)
        except tuple(ENDINGS) as error:
            console.print(f"[red]{escape(str(error))}")
            codes.append(next(code for kind, code in ENDINGS.items() if isinstance(error, kind)))
    return worst(codes)


def worst(codes: Sequence[Exit]) -> Exit:
    return next((code for code in GRAVITY if code in codes), Exit.DONE)
