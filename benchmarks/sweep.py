"""One suite measured: which cells, what is done already, rows to disk as they come, a progress bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import ModuleType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cell import Cell
from benchmarks.environment import Environment
from benchmarks.expansion import Vocabulary, expand, narrow, parse_only
from benchmarks.record import Measurement, Status
from benchmarks.store import Writer, read_rows, write_cells, write_environment, writing
from benchmarks.suite import Scale, Suite, load_suite


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and how."""

    source: str  # the suite as it was asked for, a name or a path
    scale: Scale
    suite: Suite
    cells: list[Cell]
    whole: list[str]  # the ids of all the suite's cells
    fresh: bool
    repeats: int


def make_plan(
    source: str, scale: Scale, only: Sequence[str], device: str | None, repeats: int | None, fresh: bool
) -> Plan:
    """Raises SuiteError for a suite that makes no sense, NothingLeft where `only` leaves no cell."""
    suite = load_suite(source).at_scale(scale)
    if device is not None:
        suite = suite.on_device(device)
    whole = expand(suite, load_vocabulary())
    cells = narrow(whole, parse_only(only))
    return Plan(source, scale, suite, cells, [cell.id for cell in whole], fresh, repeats or suite.repeats)


def load_vocabulary() -> Vocabulary:
    # Imported here because they import torch, which takes seconds that --help, tables and plots should not.
    from benchmarks.contenders import decline
    from benchmarks.problems import PROBLEMS
    from symplectic_adjoint import METHODS

    return Vocabulary({name: problem.sizes for name, problem in PROBLEMS.items()}, tuple(METHODS), decline)


def load_runner() -> ModuleType:
    # Imported here for the same reason.
    from benchmarks import runner

    return runner


def sweep(plan: Plan, environment: Environment, results: Path, console: Console) -> list[Measurement]:
    """Measures what has no finished row yet; returns the rows of the plan's cells. The console tells what goes on.

    Raises StoreError where another run is writing there.
    """
    folder = results / plan.suite.name / environment.id
    known = read_rows(folder / "rows.jsonl")
    for warning in known.warnings:
        console.print(f"[yellow]{escape(warning)}")
    chosen = {cell.id for cell in plan.cells}
    cells = plan.cells if plan.fresh else known.to_do(plan.cells)
    others = [row for row in known.rows if row.cell_id in set(plan.whole) - chosen]
    console.print(f"{plan.suite.name}: {len(cells)} of {len(plan.cells)} cells to measure, rows in {folder.as_posix()}")
    started = monotonic()
    with writing(folder, plan.fresh, keep=others) as writer:
        write_cells(folder, plan.whole)
        if cells:
            write_environment(folder, environment, plan.scale.value)
            _measure(plan, cells, writer, results / ".cache", console)
    took, budget = monotonic() - started, plan.suite.budget_s
    if took > budget:
        console.print(f"[yellow]{plan.suite.name} took {took:.0f} s, more than its budget_s = {budget:.0f}")
    return [row for row in read_rows(folder / "rows.jsonl").rows if row.cell_id in chosen]


def _measure(plan: Plan, cells: Sequence[Cell], writer: Writer, cache: Path, console: Console) -> None:
    runner = load_runner()
    suite = plan.suite
    settings = runner.RunSettings(suite.cell_timeout_s, plan.repeats, suite.warmup, cache, suite.measure)
    with _progress(console) as progress:
        task = progress.add_task("starting", total=len(cells))

        def emit(row: Measurement) -> None:
            row = writer.append(row)
            progress.advance(task)
            # Where nobody sees a bar, such as in the log of a CI run, each row is a line.
            if row.status is not Status.OK or not console.is_terminal:
                console.print(escape(_line(row)))

        runner.run_cells(cells, settings, emit, lambda line: progress.update(task, description=escape(line)))


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
