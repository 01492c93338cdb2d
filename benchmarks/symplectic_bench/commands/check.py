"""check: compare measurements with a baseline of accuracy, memory and function evaluations."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.analysis.baseline import (
    Baseline,
    BaselineMissing,
    CellValues,
    TimeTolerance,
    UnfitForBaseline,
    cells_of,
    lines_of_rows,
    mentioned_in,
    read_baseline,
    require_all_measured,
    with_earlier_times,
    write_baseline,
)
from symplectic_bench.analysis.micro import TIME_TOLERANCE, read_micro
from symplectic_bench.analysis.regression import (
    Finding,
    Kind,
    compare_lines,
    count_new_cells,
    counts_are_equal,
    of_kind,
    remark_on_kinds,
)
from symplectic_bench.commands.exit_codes import Exit, for_each, worst
from symplectic_bench.commands.options import BASELINE, PLOTS, RESULTS, AtScale, Plots, Results, UsersProblemPath
from symplectic_bench.commands.report_writing import EVERYTHING, report_of, write_report
from symplectic_bench.report.findings import to_markdown
from symplectic_bench.report.numerals import count_of
from symplectic_bench.report.suite_report import NoRows
from symplectic_bench.rows.environment import Environment, capture
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import read_cells, read_machine, read_rows
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.local import LocalExecutor
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.run.sweep import cells_of_suite, describe_problems, plan_of, sources_of, sweep
from symplectic_bench.spec.suite import Scale, Suite
from symplectic_bench.spec.users_problem import suite_of


def check(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]...", help="Names (see list) or .toml files.")
    ] = None,
    scale: AtScale = Scale.CPU,
    problem: UsersProblemPath = None,
    micro: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON file written by pytest-benchmark, compared with micro.jsonl."),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The environment of the rows; by default that of this machine and code."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make these rows the baseline, and print what changes.")
    ] = False,
    time: Annotated[
        bool,
        typer.Option(
            "--time", help="Fail also if a time exceeds both the relative and the absolute limit of the baseline."
        ),
    ] = False,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Also write a summary to this file, for example for a pull request.", dir_okay=False),
    ] = None,
    changelog: Annotated[
        Path | None, typer.Option(help="Fail if this file has no line about the last change of the baseline.")
    ] = None,
    baseline: Annotated[Path, typer.Option(help="Folder of baselines.", file_okay=False)] = BASELINE,
    results: Results = RESULTS,
    plots: Plots = PLOTS,
) -> None:
    """Compare the counts, memory and errors measured here with the baseline.

    Rows measured elsewhere or with other code do not count: run the suite first. With --problem everything is measured
    now, and tables and figures are written as by run. Time is compared as a multiple of
    torchdiffeq's in the same run, and fails the check only with --time.
    """
    if not suites and problem is None and micro is None:
        console.print("nothing to check: give a SUITE, --problem or --micro", style="red")
        raise typer.Exit(Exit.USAGE)
    if problem is not None and environment is not None:
        console.print("--problem always measures, in this environment: leave --environment out", style="red")
        raise typer.Exit(Exit.USAGE)
    gate = Gate(capture(), environment, scale, problem, update, time, changelog, baseline, results, plots)
    sources = suites or ([problem] if problem is not None else [])
    codes = [for_each(sources, gate.check), for_each([micro] if micro else [], gate.check_micro)]
    raise typer.Exit(with_summary(worst(codes), markdown, "\n".join(gate.summaries)))


@dataclass(frozen=True)
class Gate:
    """The options of a check. `environment` is this machine's; `environment_id` chooses other rows, if given."""

    environment: Environment
    environment_id: str | None
    scale: Scale
    problem: str | None
    update: bool
    time: bool
    changelog: Path | None
    baselines: Path
    results: Path
    plots: Path
    summaries: list[str] = field(default_factory=list)
    """One Markdown summary for each comparison."""

    def check(self, source: str) -> Exit:
        suite = suite_of(source, self.scale, self.problem)
        rows = self._stored(suite) if self.problem is None else self._measured(suite, source)
        if not self.update:
            return self._compare(suite.name, lines_of_rows(rows, self._kinds(suite, rows)))
        cells = {cell.id for cell in cells_of_suite(suite)}
        own = [row for row in rows if row.cell_id in cells]
        require_all_measured(own, len(cells))
        return self._update(suite.name, lines_of_rows(own, self._kinds(suite, own)), TimeTolerance())

    def check_micro(self, file: Path) -> Exit:
        lines = read_micro(file)
        return self._update(MICRO, lines, TIME_TOLERANCE) if self.update else self._compare(MICRO, lines)

    def _file(self, name: str) -> Path:
        return self.baselines / f"{name}.jsonl"

    def _compare(self, name: str, lines: Sequence[CellValues]) -> Exit:
        baseline = read_baseline(self._file(name))
        findings, new = compare_lines(lines, baseline), count_new_cells(lines, baseline)
        remark = remark_on_kinds(lines, baseline)
        self.summaries.append(to_markdown(name, findings, len(baseline.cells), new, self.time, remark))
        red = of_kind(findings, Kind.REGRESSION, *([Kind.SLOWER] if self.time else []))
        show_findings(findings, red)
        console.print(
            f"{name}: {count_of(len(baseline.cells), 'cell')} of the baseline compared, "
            + count_of(len(red), "regression")
            + (f"; {count_of(new, 'new cell')}: check --update adds to the baseline" if new else "")
        )
        if remark:
            console.print(f"{name}: {remark}", style="yellow")
        unexplained = self.changelog is not None and not self._is_explained(self.changelog, name, baseline)
        if unexplained:
            console.print(f"{self.changelog} has no line that says why: {_changelog_line(name, baseline)}", style="red")
        return Exit.REGRESSION if red or unexplained else Exit.DONE

    def _is_explained(self, changelog: Path, name: str, baseline: Baseline) -> bool:
        try:
            return mentioned_in(changelog, name, baseline)
        except OSError as why:
            console.print(f"{changelog} cannot be read ({why.strerror})", style="red")
            return False

    def _update(self, name: str, lines: Sequence[CellValues], time: TimeTolerance) -> Exit:
        try:
            earlier = read_baseline(self._file(name))
        except (BaselineMissing, UnfitForBaseline) as why:
            console.print(f"nothing to compare with: {why}", style="yellow")
            earlier = Baseline([], time=time)
        kinds = {line["kind"] for line in lines if line.get("kind")}
        if counts_are_equal(lines, earlier):
            kinds |= {*(earlier.kinds or ())}
        cells = with_earlier_times(cells_of(lines), earlier)
        baseline = replace(earlier, cells=cells, kinds=sorted(kinds) or None)
        show_findings(compare_lines(lines, earlier), ())
        write_baseline(self._file(name), baseline)
        console.print(f"{name}: {count_of(len(lines), 'cell')} now in the baseline, {self._file(name).as_posix()}")
        console.print(f"say why in the changelog: {_changelog_line(name, baseline)}")
        return Exit.DONE

    def _stored(self, suite: Suite) -> list[Measurement]:
        here = self._environment(suite).id if self.environment_id is None else self.environment_id
        folder = self.results / suite.name / here
        present = folder.parent.is_dir() and here in os.listdir(folder.parent)
        stored = read_rows(folder / "rows.jsonl").rows if present else []
        cells = set(read_cells(folder)) if stored else set()
        rows = [row for row in stored if row.cell_id in cells]  # cells may have been removed from the suite since
        if not rows:
            raise NoRows(f"no rows in {folder.as_posix()} to check: run the suite first")
        return rows

    def _kinds(self, suite: Suite, rows: Sequence[Measurement]) -> dict[str, str]:
        """Return the kind of processor of each environment in which the rows were measured, where it is known."""
        folder = self.results / suite.name / (self.environment_id or self._environment(suite).id)
        facts = [read_machine(folder, id) for id in {row.environment for row in rows} if id is not None]
        return {one["id"]: one["cpu_kind"] for one in facts if "cpu_kind" in one}

    def _measured(self, suite: Suite, source: str) -> list[Measurement]:
        plan = plan_of(suite, source, RunOptions(self.scale, fresh=True))
        rows = sweep(plan, self.environment, LocalExecutor(self.environment), self.results, console)
        write_report(report_of(plan, self.environment, self.results, self.plots), *EVERYTHING)
        return rows

    def _environment(self, suite: Suite) -> Environment:
        """Return this environment with the users' problems that the suite names."""
        return self.environment.with_problems(sources_of(describe_problems(suite)))


MICRO = "micro"
"""The name of the micro-benchmarks' baseline."""


def _changelog_line(name: str, baseline: Baseline) -> str:
    return f"- Baseline {name} {baseline.digest}: ..."


def with_summary(code: Exit, file: Path | None, text: str) -> Exit:
    """Write the Markdown summary to the file, if one is given, and return the exit code.

    A summary that cannot be written makes a failure of a success, but what was found keeps its code.
    """
    written = for_each([] if file is None else [file], lambda file: replace_content(file, text))
    return written if code is Exit.DONE else code


def replace_content(file: Path, text: str) -> None:
    """Write the text into the file itself, which may be a device or a pipe."""
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


def show_findings(findings: Sequence[Finding], red: Sequence[Finding]) -> None:
    """Print each cell with its findings below it, in red for those in `red`."""
    for cell, own in groupby(findings, key=lambda finding: finding.cell):
        console.print(cell)
        for finding in own:
            console.print(f"  {finding.kind:10}", style="red" if finding in red else "yellow", end=" ")
            console.print(finding.change)
