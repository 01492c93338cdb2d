"""Measure one suite: choose its cells, skip finished ones, write rows as they arrive, and show the progress."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
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
from symplectic_bench.spec.cell import Cell, is_users_problem
from symplectic_bench.spec.expansion import Vocabulary, expand, narrow, parse_only
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.suite import Scale, Suite, SuiteError
from symplectic_bench.spec.users_problem import suite_of, users_problems

if TYPE_CHECKING:
    from symplectic_bench.run.users_problems import UsersProblem


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
    problems: Mapping[str, str] = field(default_factory=dict)
    """The users' own problems, with the digests of their sources."""
    repeats_compared: int | None = None


def make_plan(source: str, options: RunOptions) -> Plan:
    """Return the plan for a suite, given by name or path.

    Raises SuiteError if the suite or an option is invalid, NothingLeft if `only` leaves no cell.
    """
    return plan_of(suite_of(source, options.scale, options.problem), source, options)


def plan_of(suite: Suite, source: str, options: RunOptions) -> Plan:
    """Return the plan for a suite that is already at its scale, once its users' problems have been tried."""
    if options.device is not None:
        suite = suite.on_device(options.device)
    if suite.trains and options.repeats is not None:
        raise SuiteError(f"{suite.name}: --repeats has no effect on a suite that trains: leave it out")
    if suite.trains:
        suite = with_available_data(suite, options.data_dir)
    own = describe_problems(suite)
    vocabulary = load_vocabulary(suite.trains, own)
    whole = expand(suite, vocabulary)
    cells = narrow(whole, parse_only(options.only or ()))
    if options.executor_choice.local and any(map(vocabulary.no_device, cells)):
        raise SuiteError(NO_DEVICE)
    if own:
        # Imported here for the same reason as below.
        from symplectic_bench.run.users_problems import require_sound

        require_sound(cells, suite.cell_timeout_s)
    repeats, problems = options.repeats or suite.repeats, sources_of(own)
    plan = Plan(source, options.scale, suite, cells, whole, options.fresh, repeats, options.data_dir, problems)
    return replace(plan, repeats_compared=options.repeats or suite.repeats_compared)


NO_DEVICE = (
    "there is no CUDA device on this machine, and these cells are measured on one: run this where torch finds one,"
    " reach one through --scheduler or --cluster, or leave out what asks for it, such as --scale gpu"
)


def with_available_data(suite: Suite, data_dir: Path | None) -> Suite:
    """Return the suite with a stand-in for every data set whose files are not in data_dir.

    Raises SuiteError if there is no such folder, or if a file in it is unusable.
    """
    # Imported here because it imports torch, which takes seconds and is not needed for --help, tables and plots.
    from symplectic_bench.data.datasets import available_dataset

    def replaced(problem: dict[str, Any]) -> dict[str, Any]:
        return problem | ({"data": available_dataset(problem["data"], data_dir)} if "data" in problem else {})

    if data_dir is not None and not os.path.isdir(data_dir):  # False also for a name that is too long
        raise SuiteError(f"--data-dir {data_dir.as_posix()}: no such folder; leave the option out to use stand-ins")
    try:
        blocks = [b.model_copy(update={"problem": [replaced(p) for p in b.problem]}) for b in suite.block]
    except MissingData as why:
        raise SuiteError(str(why)) from why
    return suite.model_copy(update={"block": blocks})


def describe_problems(suite: Suite) -> dict[str, "UsersProblem"]:
    """Import the users' own problems that a suite names, in processes of their own, and return them by name.

    Raises SuiteError if one cannot be imported.
    """
    names = [] if suite.trains else users_problems(suite)
    if not names:
        return {}
    # Imported here for the same reason as below.
    from symplectic_bench.run.users_problems import describe

    return {name: describe(name, suite.cell_timeout_s) for name in names}


def sources_of(own: Mapping[str, "UsersProblem"]) -> dict[str, str]:
    """Return the digests of the sources of users' problems, by name."""
    return {name: problem.source for name, problem in own.items()}


def cells_of_suite(suite: Suite) -> list[Cell]:
    """Return all cells of a suite."""
    return expand(suite, load_vocabulary(suite.trains, describe_problems(suite)))


def load_vocabulary(trains: bool = False, own: Mapping[str, "UsersProblem"] | None = None) -> Vocabulary:
    """Return the names that suites may use (suites that train, or the others), and the users' `own` problems."""
    # Imported here for the same reason.
    from symplectic_adjoint import METHODS
    from symplectic_bench.contenders.reasons import no_device
    from symplectic_bench.contenders.registry import decline, decline_training
    from symplectic_bench.data.tables import NAMES
    from symplectic_bench.problems import PROBLEMS
    from symplectic_bench.tasks import TASKS

    families = TASKS if trains else PROBLEMS
    sizes = {name: family.sizes for name, family in families.items()}
    sizes |= {name: dict(problem.sizes) for name, problem in (own or {}).items()}

    def decline_problem(cell: Cell) -> str | None:
        data = None if is_users_problem(cell.problem) else cell.sizes_dict.get("data")
        if data is not None and data not in NAMES:
            return f"there is no data {data!r:.80}{suggestion(str(data), NAMES)}"
        return decline(cell)

    elsewhere = {other: name for name, method in METHODS.items() for other in method.also_called}
    return Vocabulary(sizes, tuple(METHODS), decline_training if trains else decline_problem, elsewhere, no_device)


def make_measurer(plan: Plan, cells: Sequence[Cell], checkpoints: Path, cache: Path) -> Measurer:
    """Return the measurer for these cells of the plan."""
    # Imported here for the same reason.
    from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
    from symplectic_bench.run.training.runner import TrainingMeasurer, TrainingSettings, longest

    suite = plan.suite
    if not suite.trains:
        settings = MeasurementSettings(suite.cell_timeout_s, plan.repeats, suite.warmup, cache, tuple(suite.measure))
        problems, compared = dict(plan.problems), plan.repeats_compared
        return CellMeasurer(replace(settings, problems=problems, repeats_compared=compared))
    if plan.fresh:
        for cell in cells:
            (checkpoints / f"{cell.id}.pt").unlink(missing_ok=True)
    most = longest(plan.whole) if suite.evaluate else None
    settings = TrainingSettings(suite.cell_timeout_s, cache, checkpoints, plan.data_dir, most)
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

    `environment` is this machine's; with the plan's problems it gives the id under which the rows are stored. `cache`
    keeps data and references between runs; it defaults to results/.cache. Progress goes to the console. Raises
    StoreError if another run is writing there or the disk is full, ExecutorError if cells cannot be measured, and
    SuiteError if their data is unavailable.
    """
    environment = environment.with_problems(plan.problems)
    folder = results / plan.suite.name / environment.id
    chosen = {cell.id for cell in plan.cells}
    others = {cell.id for cell in plan.whole} - chosen
    started, machines = monotonic(), dict[str, Environment]()

    def write_facts() -> None:
        write_cells(folder, (cell.id for cell in plan.whole))
        if cells or not (folder / "environment.json").exists():
            write_environment(folder, environment, plan.scale.value)
        for machine in machines.values():
            write_machine(folder, machine)

    def on_loss(sentence: str) -> None:
        console.print(sentence, style="yellow")
        write_facts()

    cells: list[Cell] = []
    with writing(folder, plan.fresh, others, on_loss) as writer:
        for warning in writer.known.warnings:
            console.print(warning, style="yellow")
        cells = plan.cells if plan.fresh else writer.known.to_do(plan.cells)
        what = f"{len(cells)} of {len(plan.cells)} cells to measure"
        console.print(f"{plan.suite.name}: {what}, rows in {folder.as_posix()}")
        write_facts()
        if cells:
            # In a folder named after the suite's source, so that no run resumes with code other than it began with.
            checkpoints = folder / "checkpoints" / environment.suite_sha256[:12]
            measurer = make_measurer(plan, cells, checkpoints, cache or results / ".cache")
            try:
                _measure(measurer, cells, executor, plan.problems, writer, machines, console)
            except MissingData as why:
                raise SuiteError(f"{plan.suite.name}: {why}") from why
    took, budget = monotonic() - started, plan.suite.budget_s
    if took > budget:
        console.print(f"{plan.suite.name} took {took:.0f} s, more than its budget_s = {budget:.0f}", style="yellow")
    return [row for row in writer.rows.rows if row.cell_id in chosen]


def _measure(
    measurer: Measurer,
    cells: Sequence[Cell],
    executor: Executor,
    problems: Mapping[str, str],
    writer: Writer,
    machines: dict[str, Environment],
    console: Console,
) -> None:
    """Measure the cells and write their rows. `machines` receives the environments in which they were measured."""
    printed = set[str]()
    with _progress(console) as progress:
        task = progress.add_task("starting", total=len(cells))

        def on_row(row: Measurement, machine: Environment) -> None:
            environment = machine.with_problems(problems)
            if environment.id not in machines:
                machines[environment.id] = environment
                write_machine(writer.folder, environment)
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
