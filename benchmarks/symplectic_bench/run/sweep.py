"""One suite measured: which cells, what is done already, rows to disk as they come, a progress bar."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from symplectic_bench.data.errors import MissingData
from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import Writer, write_cells, write_environment, write_machine, writing
from symplectic_bench.run.executors.executor import Executor, Work
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import Vocabulary, expand, narrow, parse_only
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale, Suite, SuiteError, load_suite


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
    """What the command line asks of every suite. data_dir has the published data sets that are at hand. problem is the
    import path of a user's own, which suites may then name.
    """

    scale: Scale = Scale.CPU
    only: Sequence[str] = ()
    device: str | None = None
    repeats: int | None = None
    fresh: bool = False
    data_dir: Path | None = None
    problem: str | None = None


def make_plan(source: str, wishes: Wishes) -> Plan:
    """Raises SuiteError for a suite that makes no sense, NothingLeft where `only` leaves no cell."""
    return plan_of(load_suite(source).at_scale(wishes.scale), source, wishes)


def plan_of(suite: Suite, source: str, wishes: Wishes) -> Plan:
    """The plan for a suite that is at its scale already."""
    if wishes.device is not None:
        suite = suite.on_device(wishes.device)
    if suite.trains and wishes.repeats is not None:
        raise SuiteError(f"{suite.name}: --repeats means nothing where networks are trained")
    if suite.trains:
        suite = with_data_at_hand(suite, wishes.data_dir)
    whole = cells_of_suite(suite, wishes.problem)
    cells = narrow(whole, parse_only(wishes.only))
    repeats = wishes.repeats or suite.repeats
    return Plan(source, wishes.scale, suite, cells, whole, wishes.fresh, repeats, wishes.data_dir)


def with_data_at_hand(suite: Suite, data_dir: Path | None) -> Suite:
    """The suite with a stand-in for every data set whose files are not in data_dir. SuiteError for files of no use."""
    # Imported here because it imports torch, which takes seconds that --help, tables and plots should not.
    from symplectic_bench.data.datasets import available_dataset

    def replaced(problem: dict[str, Any]) -> dict[str, Any]:
        return problem | ({"data": available_dataset(problem["data"], data_dir)} if "data" in problem else {})

    if data_dir is not None and not data_dir.is_dir():
        raise SuiteError(f"--data-dir {data_dir.name}: no such folder")
    try:
        blocks = [b.model_copy(update={"problem": [replaced(p) for p in b.problem]}) for b in suite.block]
    except MissingData as why:
        raise SuiteError(str(why)) from why
    return suite.model_copy(update={"block": blocks})


def cells_of_suite(suite: Suite, problem: str | None = None) -> list[Cell]:
    return expand(suite, load_vocabulary(suite.trains, problem))


def load_vocabulary(trains: bool = False, problem: str | None = None) -> Vocabulary:
    """What the cells of suites that train, or of those that do not, may speak of: the user's own problem too.

    Nothing is imported that a suite file alone asks for. Raises SuiteError where the problem cannot be imported.
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
    return Vocabulary(sizes, tuple(METHODS), decline_training if trains else decline)


def load_work(plan: Plan, cells: Sequence[Cell], checkpoints: Path, cache: Path) -> Work:
    """What is to be done with these cells of the plan's."""
    # Imported here for the same reason.
    from symplectic_bench.run.cells import Measuring, RunSettings
    from symplectic_bench.run.training.runner import Training, TrainingSettings, longest

    suite = plan.suite
    if not suite.trains:
        measured = tuple(suite.measure)
        return Measuring(RunSettings(suite.cell_timeout_s, plan.repeats, suite.warmup, cache, measured))
    if plan.fresh:
        for cell in cells:
            (checkpoints / f"{cell.id}.pt").unlink(missing_ok=True)
    settings = TrainingSettings(suite.cell_timeout_s, cache, checkpoints, plan.data_dir, longest(plan.whole))
    return Training(replace(settings, fresh=uuid4().hex if plan.fresh else ""))


def sweep(
    plan: Plan,
    environment: Environment,
    executor: Executor,
    results: Path,
    console: Console,
    cache: Path | None = None,
) -> list[Measurement]:
    """Measures what has no finished row yet; returns the rows of the plan's cells. The console tells what goes on.

    environment is this machine's, under whose id the rows are kept. cache keeps data and references between runs,
    results/.cache where it is not given. Raises StoreError where another run is writing there, or the disk is full, and
    ExecutorError where cells cannot be measured.
    """
    folder = results / plan.suite.name / environment.id
    chosen = {cell.id for cell in plan.cells}
    others = {cell.id for cell in plan.whole} - chosen
    started = monotonic()
    with writing(folder, plan.fresh, keep=others) as writer:
        for warning in writer.known.warnings:
            console.print(f"[yellow]{escape(warning)}")
        cells = plan.cells if plan.fresh else writer.known.to_do(plan.cells)
        what = f"{len(cells)} of {len(plan.cells)} cells to measure"
        console.print(f"{plan.suite.name}: {what}, rows in {folder.as_posix()}")
        write_cells(folder, (cell.id for cell in plan.whole))
        if cells:
            write_environment(folder, environment, plan.scale.value)
            # Of the suite's own source, so that no run goes on with other code than it began with.
            checkpoints = folder / "checkpoints" / environment.suite_sha256[:12]
            work = load_work(plan, cells, checkpoints, cache or results / ".cache")
            try:
                _measure(work, cells, executor, writer, folder, console)
            except MissingData as why:
                raise SuiteError(f"{plan.suite.name}: {why}") from why
    took, budget = monotonic() - started, plan.suite.budget_s
    if took > budget:
        console.print(f"[yellow]{plan.suite.name} took {took:.0f} s, more than its budget_s = {budget:.0f}")
    return [row for row in writer.rows.rows if row.cell_id in chosen]


def _measure(
    work: Work, cells: Sequence[Cell], executor: Executor, writer: Writer, folder: Path, console: Console
) -> None:
    machines, said = set[str](), set[str]()
    with _progress(console) as progress:
        task = progress.add_task("starting", total=len(cells))

        def emit(row: Measurement, environment: Environment) -> None:
            if environment.id not in machines:
                write_machine(folder, environment)
                machines.add(environment.id)
            written = writer.append(replace(row, environment=environment.id))
            if written is None:
                return
            progress.advance(task)
            # Where nobody sees a bar, such as in the log of a CI run, each row is a line.
            if row.status is not Status.OK or not console.is_terminal:
                console.print(escape(_line(row)))

        def note(line: str, cell: Cell | None = None, waits: bool = False) -> None:
            progress.update(task, description=escape(line))
            if waits and not console.is_terminal and line not in said:
                said.add(line)
                console.print(escape(line))

        executor.run(work, cells, emit, note)


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
