"""One suite measured: which cells, what is done already, rows to disk as they come, a progress bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cell import Cell
from benchmarks.environment import Environment
from benchmarks.expansion import Vocabulary, expand, narrow, parse_only
from benchmarks.missing_data import MissingData
from benchmarks.record import Measurement, Status
from benchmarks.store import Writer, read_rows, write_cells, write_environment, writing
from benchmarks.suite import Scale, Suite, SuiteError, load_suite


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and how."""

    source: str  # the suite as it was asked for, a name or a path
    scale: Scale
    suite: Suite
    cells: list[Cell]
    whole: list[Cell]  # all the suite's cells
    fresh: bool
    repeats: int
    data_dir: Path | None = None


@dataclass(frozen=True)
class Wishes:
    """What the command line asks of every suite. data_dir has the published data sets that are at hand."""

    scale: Scale = Scale.CPU
    only: Sequence[str] = ()
    device: str | None = None
    repeats: int | None = None
    fresh: bool = False
    data_dir: Path | None = None


def make_plan(source: str, wishes: Wishes) -> Plan:
    """Raises SuiteError for a suite that makes no sense, NothingLeft where `only` leaves no cell."""
    suite = load_suite(source).at_scale(wishes.scale)
    if wishes.device is not None:
        suite = suite.on_device(wishes.device)
    if suite.trains and wishes.repeats is not None:
        raise SuiteError(f"{suite.name}: --repeats means nothing where networks are trained")
    if suite.trains:
        suite = with_data_at_hand(suite, wishes.data_dir)
    whole = expand(suite, load_vocabulary(suite.trains))
    cells = narrow(whole, parse_only(wishes.only))
    repeats = wishes.repeats or suite.repeats
    return Plan(source, wishes.scale, suite, cells, whole, wishes.fresh, repeats, wishes.data_dir)


def with_data_at_hand(suite: Suite, data_dir: Path | None) -> Suite:
    """The suite with a stand-in for every data set whose files are not in data_dir. SuiteError for files of no use."""
    # Imported here because it imports torch, which takes seconds that --help, tables and plots should not.
    from benchmarks.datasets import at_hand

    def replaced(problem: dict[str, Any]) -> dict[str, Any]:
        return problem | ({"data": at_hand(problem["data"], data_dir)} if "data" in problem else {})

    if data_dir is not None and not data_dir.is_dir():
        raise SuiteError(f"--data-dir {data_dir.name}: no such folder")
    try:
        blocks = [b.model_copy(update={"problem": [replaced(p) for p in b.problem]}) for b in suite.block]
    except MissingData as why:
        raise SuiteError(str(why)) from why
    return suite.model_copy(update={"block": blocks})


def load_vocabulary(trains: bool = False) -> Vocabulary:
    """What the cells of suites that train, or of those that do not, may speak of."""
    # Imported here for the same reason.
    from benchmarks.contenders import decline, decline_training
    from benchmarks.problems import PROBLEMS
    from benchmarks.tasks import TASKS
    from symplectic_adjoint import METHODS

    families = TASKS if trains else PROBLEMS
    sizes = {name: family.sizes for name, family in families.items()}
    return Vocabulary(sizes, tuple(METHODS), decline_training if trains else decline)


def load_runner(trains: bool = False) -> ModuleType:
    # Imported here for the same reason.
    from benchmarks import runner
    from benchmarks.training import runner as training

    return training if trains else runner


def sweep(
    plan: Plan, environment: Environment, results: Path, console: Console, cache: Path | None = None
) -> list[Measurement]:
    """Measures what has no finished row yet; returns the rows of the plan's cells. The console tells what goes on.

    cache keeps data and references between runs, results/.cache where it is not given.

    Raises StoreError where another run is writing there.
    """
    folder = results / plan.suite.name / environment.id
    known = read_rows(folder / "rows.jsonl")
    for warning in known.warnings:
        console.print(f"[yellow]{escape(warning)}")
    chosen = {cell.id for cell in plan.cells}
    cells = plan.cells if plan.fresh else known.to_do(plan.cells)
    others = [row for row in known.rows if row.cell_id in {cell.id for cell in plan.whole} - chosen]
    console.print(f"{plan.suite.name}: {len(cells)} of {len(plan.cells)} cells to measure, rows in {folder.as_posix()}")
    started = monotonic()
    with writing(folder, plan.fresh, keep=others) as writer:
        write_cells(folder, (cell.id for cell in plan.whole))
        if cells:
            write_environment(folder, environment, plan.scale.value)
            # Of the suite's own source, so that no run goes on with other code than it began with.
            checkpoints = folder / "checkpoints" / environment.suite_sha256[:12]
            _measure(plan, cells, writer, checkpoints, cache or results / ".cache", console)
    took, budget = monotonic() - started, plan.suite.budget_s
    if took > budget:
        console.print(f"[yellow]{plan.suite.name} took {took:.0f} s, more than its budget_s = {budget:.0f}")
    return [row for row in read_rows(folder / "rows.jsonl").rows if row.cell_id in chosen]


def _measure(
    plan: Plan, cells: Sequence[Cell], writer: Writer, checkpoints: Path, cache: Path, console: Console
) -> None:
    suite = plan.suite
    runner = load_runner(suite.trains)
    if suite.trains:
        if plan.fresh:
            for cell in cells:
                (checkpoints / f"{cell.id}.pt").unlink(missing_ok=True)
        run = runner.train_cells
        longest = runner.longest(plan.whole)
        settings = runner.TrainingSettings(suite.cell_timeout_s, cache, checkpoints, plan.data_dir, longest)
    else:
        run = runner.run_cells
        settings = runner.RunSettings(suite.cell_timeout_s, plan.repeats, suite.warmup, cache, suite.measure)
    with _progress(console) as progress:
        task = progress.add_task("starting", total=len(cells))

        def emit(row: Measurement) -> None:
            row = writer.append(row)
            progress.advance(task)
            # Where nobody sees a bar, such as in the log of a CI run, each row is a line.
            if row.status is not Status.OK or not console.is_terminal:
                console.print(escape(_line(row)))

        try:
            run(cells, settings, emit, lambda line: progress.update(task, description=escape(line)))
        except MissingData as why:
            raise SuiteError(f"{suite.name}: {why}") from why


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=600,  # cells are as slow as their tolerance is small: average over many
    )


def _line(row: Measurement) -> str:
    reason = f" ({row.reason})" if row.reason else ""
    return f"{row.status}{reason}: {row.cell.group_label}: {row.cell.name}"
