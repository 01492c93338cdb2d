"""Measure one suite: choose its cells, skip finished ones, write rows as they arrive, and show the progress."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from symplectic_bench.data.errors import MissingData
from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import Writer, write_cells, write_environment, write_machine, writing
from symplectic_bench.run.console import visible
from symplectic_bench.run.executors.executor import Executor, Measurer
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import Vocabulary, expand, narrow, parse_only
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale, Suite, SuiteError, load_suite


@dataclass(frozen=True)
class Plan:
    """The cells to measure, and how to measure them."""

    source: str  # the suite as given on the command line, a name or a path
    scale: Scale
    suite: Suite
    cells: list[Cell]
    whole: list[Cell]  # all the suite's cells
    fresh: bool
    repeats: int
    data_dir: Path | None = None


def make_plan(source: str, options: RunOptions) -> Plan:
    """Return the plan for a suite, given by name or path.

    Raises SuiteError if the suite or an option is invalid, NothingLeft if `only` leaves no cell.
    """
    return plan_of(load_suite(source).at_scale(options.scale), source, options)


def plan_of(suite: Suite, source: str, options: RunOptions, problem: str | None = None) -> Plan:
    """Return the plan for a suite that is already at its scale.

    `problem` is the import path of a user's own problem, which the suite may then name.
    """
    if options.device is not None:
        suite = suite.on_device(options.device)
    if suite.trains and options.repeats is not None:
        raise SuiteError(f"{suite.name}: --repeats has no effect on a suite that trains: leave it out")
    if suite.trains:
        suite = with_available_data(suite, options.data_dir)
    whole = cells_of_suite(suite, problem)
    cells = narrow(whole, parse_only(options.only or ()))
    repeats = options.repeats or suite.repeats
    return Plan(source, options.scale, suite, cells, whole, options.fresh, repeats, options.data_dir)


def with_available_data(suite: Suite, data_dir: Path | None) -> Suite:
    """Return the suite with a stand-in for every data set whose files are not in data_dir.

    Raises SuiteError if there is no such folder, or if a file in it is unusable.
    """
    # Imported here because it imports torch, which takes seconds and is not needed for --help, tables and plots.
    from symplectic_bench.data.datasets import available_dataset

    def replaced(problem: dict[str, Any]) -> dict[str, Any]:
        return problem | ({"data": available_dataset(problem["data"], data_dir)} if "data" in problem else {})

    if data_dir is not None and not data_dir.is_dir():
        raise SuiteError(f"--data-dir {data_dir.as_posix()}: no such folder; leave the option out to use stand-ins")
    try:
        blocks = [b.model_copy(update={"problem": [replaced(p) for p in b.problem]}) for b in suite.block]
    except MissingData as why:
        raise SuiteError(str(why)) from why
    return suite.model_copy(update={"block": blocks})


def cells_of_suite(suite: Suite, problem: str | None = None) -> list[Cell]:
    """Return all cells of a suite, which may name the user's own `problem`."""
    return expand(suite, load_vocabulary(suite.trains, problem))


def load_vocabulary(trains: bool = False, problem: str | None = None) -> Vocabulary:
    """Return the names that suites may use (suites that train, or the others), including the user's own `problem`.

    Nothing is imported merely because a suite file names it. Raises SuiteError if the problem cannot be imported.
    """
    # Imported here for the same reason.
    from symplectic_adjoint import METHODS
    from symplectic_bench.contenders.registry import decline, decline_training
    from symplectic_bench.problems import PROBLEMS, InvalidProblem
    from symplectic_bench.tasks import TASKS

    families = TASKS if trains else PROBLEMS
    sizes = {name: family.sizes for name, family in families.items()}
    if problem is not None:
        try:
            sizes[problem] = PROBLEMS[problem].sizes
        except InvalidProblem as why:
            raise SuiteError(f"--problem {problem}: {why}") from why
    elsewhere = {other: name for name, method in METHODS.items() for other in method.also_called}
    return Vocabulary(sizes, tuple(METHODS), decline_training if trains else decline, elsewhere)


def make_measurer(plan: Plan, cells: Sequence[Cell], checkpoints: Path, cache: Path) -> Measurer:
    """Return the measurer for these cells of the plan."""
    # Imported here for the same reason.
    from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
    from symplectic_bench.run.training.runner import TrainingMeasurer, TrainingSettings, longest

    suite = plan.suite
    if not suite.trains:
        measured = tuple(suite.measure)
        return CellMeasurer(MeasurementSettings(suite.cell_timeout_s, plan.repeats, suite.warmup, cache, measured))
    if plan.fresh:
        for cell in cells:
            (checkpoints / f"{cell.id}.pt").unlink(missing_ok=True)
    settings = TrainingSettings(suite.cell_timeout_s, cache, checkpoints, plan.data_dir, longest(plan.whole))
    return TrainingMeasurer(replace(settings, fresh=uuid4().hex if plan.fresh else ""))


def sweep(
    plan: Plan,
    environment: Environment,
    executor: Executor,
    results: Path,
    console: Console,
    cache: Path | None = None,
) -> list[Measurement]:
    """Measure the plan's cells that have no finished row yet, and return the rows of all its cells.

    `environment` is this machine's, under whose id the rows are stored. `cache` keeps data and references between runs;
    it defaults to results/.cache. Progress goes to the console. Raises StoreError if another run is writing there or
    the disk is full, ExecutorError if cells cannot be measured, and SuiteError if their data is unavailable.
    """
    folder = results / plan.suite.name / environment.id
    chosen = {cell.id for cell in plan.cells}
    others = {cell.id for cell in plan.whole} - chosen
    started = monotonic()
    with writing(folder, plan.fresh, keep=others) as writer:
        for warning in writer.known.warnings:
            console.print(warning, style="yellow")
        cells = plan.cells if plan.fresh else writer.known.to_do(plan.cells)
        what = f"{len(cells)} of {len(plan.cells)} cells to measure"
        console.print(f"{plan.suite.name}: {what}, rows in {folder.as_posix()}")
        write_cells(folder, (cell.id for cell in plan.whole))
        if cells:
            write_environment(folder, environment, plan.scale.value)
            # In a folder named after the suite's source, so that no run resumes with code other than it began with.
            checkpoints = folder / "checkpoints" / environment.suite_sha256[:12]
            measurer = make_measurer(plan, cells, checkpoints, cache or results / ".cache")
            try:
                _measure(measurer, cells, executor, writer, folder, console)
            except MissingData as why:
                raise SuiteError(f"{plan.suite.name}: {why}") from why
    took, budget = monotonic() - started, plan.suite.budget_s
    if took > budget:
        console.print(f"{plan.suite.name} took {took:.0f} s, more than its budget_s = {budget:.0f}", style="yellow")
    return [row for row in writer.rows.rows if row.cell_id in chosen]


def _measure(
    measurer: Measurer, cells: Sequence[Cell], executor: Executor, writer: Writer, folder: Path, console: Console
) -> None:
    machines, printed = set[str](), set[str]()
    with _progress(console) as progress:
        task = progress.add_task("starting", total=len(cells))

        def on_row(row: Measurement, environment: Environment) -> None:
            if environment.id not in machines:
                write_machine(folder, environment)
                machines.add(environment.id)
            written = writer.append(replace(row, environment=environment.id))
            if written is None:
                return
            progress.advance(task)
            # Without a terminal there is no bar: each row is a line, for example in the log of a CI run.
            if row.status is not Status.OK or not console.is_terminal:
                console.print(_line(row))

        def on_progress(line: str, cell: Cell | None = None, waits: bool = False) -> None:
            progress.update(task, description=visible(line))
            if waits and not console.is_terminal and line not in printed:
                printed.add(line)
                console.print(line)

        executor.run(measurer, cells, on_row, on_progress)


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=600,  # cells with small tolerances are slower: average over many
    )


def _line(row: Measurement) -> str:
    reason = f" ({row.reason})" if row.reason else ""
    return f"{row.status}{reason}: {row.cell.group_label}: {row.cell.name}"
