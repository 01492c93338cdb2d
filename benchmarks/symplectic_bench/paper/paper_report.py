"""The paper's report at one scale, written from stored rows: tables, figures, and a page with all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.paper.experiments import Experiment
from symplectic_bench.report.page import Chapter, appendix, book, relative, write_page
from symplectic_bench.report.parts import parts
from symplectic_bench.report.portraits import write_portrait
from symplectic_bench.report.render import render
from symplectic_bench.report.suite_report import NoRows, SuiteReport, UnknownEnvironment, choose_environment
from symplectic_bench.report.typesetting import write_table
from symplectic_bench.spec.suite import Scale, load_suite

FORMATS = ("svg", "pdf", "png")

TITLE = "The paper, regenerated"


@dataclass(frozen=True)
class PaperReport:
    """The report at one scale. Rows are in results/rows; tables and the page go to results, figures to plots."""

    scale: Scale
    results: Path
    plots: Path

    @classmethod
    def within(cls, scale: Scale, results: Path, plots: Path) -> "PaperReport":
        """Return the report in the subfolders "paper" of the two, or "paper-smoke" and so on for other scales.

        Rows of a small run are thus never mistaken for the paper's.
        """
        name = "paper" if scale is Scale.CPU else f"paper-{scale.value}"
        return cls(scale, results / name, plots / name)

    @property
    def rows(self) -> Path:
        """The folder of the rows, one subfolder per experiment."""
        return self.results / "rows"

    def chapter(self, experiment: Experiment, environment: str | None = None) -> tuple[Chapter, list[Path]]:
        """Write one experiment's tables and figures; return its chapter and the files written.

        Raises NoRows if nothing was measured, UnknownEnvironment if nothing was measured in this environment.
        """
        suite = load_suite(experiment.source).at_scale(self.scale)
        chosen = choose_environment(self.rows / suite.name, environment)
        report = SuiteReport(suite, experiment.source, self.scale, chosen, self.rows, self.plots)
        if not report.rows:
            raise NoRows(f"{suite.name}: no rows yet; measure it with: symplectic-bench paper {experiment.name}")
        tables, figures = experiment.output(report)
        paths = [path for table in tables for path in write_table(table, self.results)]
        paths += [path for one in figures for part in parts(one) for path in render(part, self.plots, FORMATS)]
        return Chapter(suite, report.where, figures, tables), paths

    def page(self, chapters: Sequence[Chapter]) -> list[Path]:
        """Write the portrait of the gradient flow and the page of all chapters; return the files."""
        portrait = write_portrait("memory_flow", self.plots, FORMATS)
        scale = "" if self.scale is Scale.CPU else f" --scale {self.scale.value}"
        folder = relative(self.plots, self.results)
        opening = (
            f"Measured and made by `symplectic-bench paper{scale}`; nothing here is written by hand. Below each"
            " table are the paper's claims and whether they hold in this run. If a claim says much, fast or near"
            " without a number, the number is our choice.\n\n## A gradient flow with fading memory\n\n"
            f"![Trajectories in the plane]({folder}/{portrait[0].name})\n\nTrajectories of Kalita and Zgliczynski's"
            " gradient flow with memory, x' = -grad V(x) + eps m, m' = (x - m) / tau, to the equilibria of its double"
            " well, each from a dot to a star; eps = 0.5."
        )
        text, further = book(TITLE, opening, chapters, folder), appendix(TITLE, chapters, folder)
        return [*portrait, *write_page(text, further, self.results)]

    def earlier_chapter(self, experiment: Experiment, environment: str | None = None) -> Chapter | None:
        """Rewrite an experiment that was measured earlier and return its chapter, or None if it never was.

        If it was not measured in this environment, the newest rows are used; the chapter names their environment.
        """
        for wanted in dict.fromkeys((environment, None)):
            try:
                return self.chapter(experiment, wanted)[0]
            except (NoRows, UnknownEnvironment):
                continue
        return None
