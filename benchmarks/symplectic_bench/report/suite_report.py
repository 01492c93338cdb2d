"""A suite's report: tables, figures and the page, made from stored rows. Nothing is measured here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from symplectic_bench.analysis.claims import ClaimResult, evaluate_claims
from symplectic_bench.analysis.exponents import exponents
from symplectic_bench.analysis.summary import Line, lines_of, summarize
from symplectic_bench.report.claim_figures import claim_figure
from symplectic_bench.report.claim_tables import claim_tables
from symplectic_bench.report.figures import all_figures
from symplectic_bench.report.growth_figures import growth
from symplectic_bench.report.method_figures import method_figures
from symplectic_bench.report.page import Chapter, appendix, page, relative, write_page
from symplectic_bench.report.panels import FigureSpec
from symplectic_bench.report.parts import parts
from symplectic_bench.report.render import render
from symplectic_bench.report.tables import all_tables
from symplectic_bench.report.training_figures import training_figures
from symplectic_bench.report.training_tables import training_tables
from symplectic_bench.report.typesetting import Table, write_table
from symplectic_bench.rows.environment import describe
from symplectic_bench.rows.parquet import write_parquet
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import environment_ids, read_cells, read_environment, read_machine, read_rows
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.question import AskedQuestion
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.suite import Scale, Suite
from symplectic_bench.spec.users_problem import users_problems


class NoRows(RuntimeError):
    """There are no rows to report."""


class UnknownEnvironment(ValueError):
    """An environment id without rows."""


@dataclass(frozen=True)
class SuiteReport:
    """The rows of one suite in one environment, and the files made from them.

    cells are all the cells of a suite that has targets or claims, so that those without a row can be named; empty for
    other suites. questions are those of its blocks. mix_machines: whether ratios may be of rows that different machines
    measured in one sweep.
    """

    suite: Suite
    source: str  # the suite as given on the command line, a name or a path
    scale: Scale
    environment_id: str
    results: Path
    plots: Path
    cells: Sequence[Cell] = ()
    questions: Sequence[AskedQuestion] = ()
    mix_machines: bool = False

    @cached_property
    def folder(self) -> Path:
        """The suite's folder of rows, tables and the page."""
        return self.results / self.suite.name

    @cached_property
    def where(self) -> str:
        """The sentences that end each caption: which machine measured the rows, and whether some are missing."""
        cells, missing = read_cells(self.folder / self.environment_id), len(self.cells_without_rows)
        part = f" {len(cells) - missing} of the suite's {len(cells)} cells have been measured." if missing else ""
        return " ".join(map(describe, self.machines)) + part + self._mixing(len(self.machines))

    @cached_property
    def machines(self) -> list[dict[str, Any]]:
        """The facts of each environment that measured rows."""
        ids = {row.environment or self.environment_id for row in self._stored} or {self.environment_id}
        return [read_machine(self.folder / self.environment_id, id) for id in sorted(ids)]

    @cached_property
    def own_machine(self) -> dict[str, Any]:
        """The facts of the environment after which the rows' folder is called, with the time of its last run."""
        return read_environment(self.folder / self.environment_id)

    def _mixing(self, machines: int) -> str:
        if machines == 1:
            return ""
        if self.mix_machines:
            return f" Ratios may combine two of these {machines} machines."
        return " No ratio combines two machines."

    @cached_property
    def _stored(self) -> list[Measurement]:
        """The rows of the suite's present cells. Rows of cells that it no longer has are left out."""
        cells = set(read_cells(self.folder / self.environment_id))
        found = read_rows(self.folder / self.environment_id / "rows.jsonl").rows
        return [row for row in found if row.cell_id in cells]

    @cached_property
    def rows(self) -> list[Measurement]:
        """The rows; without the machines that measured them if machines are mixed."""
        if self.mix_machines:
            return [replace(row, environment=None) for row in self._stored]
        return self._stored

    @cached_property
    def cells_without_rows(self) -> set[str]:
        """The ids of the suite's cells that were not measured yet."""
        return set(read_cells(self.folder / self.environment_id)) - {row.cell_id for row in self.rows}

    @cached_property
    def frame(self) -> pd.DataFrame:
        return summarize(self.rows)

    @cached_property
    def tables(self) -> list[Table]:
        claimed = claim_tables(self.claims, self.exponents, self.where)
        if self.suite.trains:
            return claimed + training_tables(self.frame, self.where)
        return claimed + all_tables(self.frame, self.where, self.targets, self.questions)

    @cached_property
    def targets(self) -> list[ClaimResult]:
        """The results of the suite's targets, in the order of the suite's cells."""
        return evaluate_claims([target.claim for target in self.suite.target], self.known_cells, self.lines)

    @cached_property
    def claims(self) -> list[ClaimResult]:
        """The results of the suite's claims."""
        return evaluate_claims(self.suite.claim, self.known_cells, self.lines)

    @cached_property
    def exponents(self) -> list[Line]:
        return exponents(self.claims, self.known_cells, self.lines)

    @cached_property
    def known_cells(self) -> list[Cell]:
        """The suite's cells that are known, from `cells` or from their rows."""
        known = {cell.id: cell for cell in (*self.cells, *(row.cell for row in self.rows))}
        return [known[id] for id in read_cells(self.folder / self.environment_id) if id in known]

    @cached_property
    def lines(self) -> list[Line]:
        """The frame's lines."""
        return lines_of(self.frame)

    @cached_property
    def figures(self) -> list[FigureSpec]:
        if self.suite.trains:
            return training_figures(self.frame, self.where)
        if self.suite.compares == "methods":
            return method_figures(self.frame, self.where)
        if self.suite.compares == "claims":
            shown = [claim_figure(self.claims, self.where), growth(self.frame, self.where)]
            return [figure for figure in shown if figure.blocks]
        return all_figures(self.frame, self.where, self.exponents)

    def write_tables(self) -> list[Path]:
        return [path for table in self.tables for path in write_table(table, self.folder / "tables")]

    def write_rows(self) -> list[Path]:
        return [write_parquet(self._stored, self.folder / "rows.parquet")]

    def write_plots(self) -> list[Path]:
        every = [part for figure in self.figures for part in parts(figure)]
        return [path for part in every for path in render(part, self.plots / self.suite.name)]

    @cached_property
    def command(self) -> str:
        """The command that makes the report again."""
        scale = "" if self.scale is Scale.CPU else f" --scale {self.scale.value}"
        source = f"--problem {self.source}" if self.source in users_problems(self.suite) else Path(self.source).name
        return f"symplectic-bench report {source}{scale}"

    def write_page(self) -> list[Path]:
        plots = relative(self.plots / self.suite.name, self.folder)
        chapter = Chapter(self.suite, self.where, self.figures, self.tables)
        further = appendix(self.suite.title, [chapter], plots)
        return write_page(page(chapter, self.command, plots), further, self.folder)


def choose_environment(suite_folder: Path, wanted: str | None) -> str:
    """Return the environment `wanted`, or by default that of the newest run.

    Raises NoRows if no environment has rows, UnknownEnvironment if `wanted` has none.
    """
    known = environment_ids(suite_folder)
    if not known:
        raise NoRows(f"no rows in {suite_folder.as_posix()}: measure them with symplectic-bench run")
    if wanted is None:
        return known[0]
    if wanted not in known:
        raise UnknownEnvironment(f"no environment {wanted!r} in {suite_folder.as_posix()}{suggestion(wanted, known)}")
    return wanted
