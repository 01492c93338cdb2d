"""The paper's tables and figures of one scale, written from rows: the files, and the page that shows them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.paper.experiments import Experiment
from symplectic_bench.report.page import Chapter, book, relative, write_page
from symplectic_bench.report.portraits import write_portrait
from symplectic_bench.report.publication import NoRows, Publication, UnknownEnvironment, choose_environment
from symplectic_bench.report.render import render
from symplectic_bench.report.typesetting import write_table
from symplectic_bench.spec.suite import Scale, load_suite

FORMATS = ("svg", "pdf", "png")

TITLE = "The paper, regenerated"


@dataclass(frozen=True)
class Edition:
    """Where everything of a scale is: rows in results/rows, tables and the page in results, figures in plots."""

    scale: Scale
    results: Path
    plots: Path

    @classmethod
    def within(cls, scale: Scale, results: Path, plots: Path) -> "Edition":
        """The folder "paper" of the two, or "paper-smoke" and so on: small runs never stand in for the paper's."""
        name = "paper" if scale is Scale.CPU else f"paper-{scale.value}"
        return cls(scale, results / name, plots / name)

    @property
    def rows(self) -> Path:
        return self.results / "rows"

    def chapter(self, experiment: Experiment, environment: str | None = None) -> tuple[Chapter, list[Path]]:
        """One experiment's tables and figures, and the files written. Raises NoRows where nothing was measured."""
        suite = load_suite(experiment.source).at_scale(self.scale)
        chosen = choose_environment(self.rows / suite.name, environment)
        published = Publication(suite, experiment.source, self.scale, chosen, self.rows, self.plots)
        if not published.rows:
            raise NoRows(f"{suite.name}: no rows yet: measure with symplectic-bench paper {experiment.name}")
        tables, figures = experiment.shown(published)
        paths = [path for table in tables for path in write_table(table, self.results)]
        paths += [path for figure in figures for path in render(figure, self.plots, FORMATS)]
        return Chapter(suite, published.where, figures, tables), paths

    def page(self, chapters: Sequence[Chapter]) -> list[Path]:
        """The portrait and the page."""
        portrait = write_portrait("memory_flow", self.plots, FORMATS)
        scale = "" if self.scale is Scale.CPU else f" --scale {self.scale.value}"
        folder = relative(self.plots, self.results)
        opening = (
            f"Measured and made by `symplectic-bench paper{scale}`; nothing here is written by hand. Below each"
            " table stands how this run rules on the paper's claims. Where one says much, fast or near without a"
            " number, the number is ours.\n\n## A gradient flow with fading memory\n\n"
            f"![Ways in the plane]({folder}/{portrait[0].name})\n\nThe ways of Kalita and Zgliczynski's gradient flow"
            " with memory, x' = -grad V(x) + eps m, m' = (x - m) / tau, to the equilibria of its double well,"
            " each from a dot to a star; eps = 0.5."
        )
        return [*portrait, write_page(book(TITLE, opening, chapters, folder), self.results)]

    def known(self, experiment: Experiment, environment: str | None = None) -> list[Chapter]:
        """The chapter of an experiment measured earlier, its files written again; none where it was not.

        Where it was not measured in that environment, the newest one's, which its own words name.
        """
        for wanted in dict.fromkeys((environment, None)):
            try:
                return [self.chapter(experiment, wanted)[0]]
            except (NoRows, UnknownEnvironment):
                continue
        return []
