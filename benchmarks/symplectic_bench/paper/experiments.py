"""The experiments in the paper's order, each with its tables and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from symplectic_bench.analysis.claims import ClaimOutcome, ClaimResult, support_text
from symplectic_bench.paper.figures import against_symplectic, budgets, stages, tolerances
from symplectic_bench.report.claim_tables import claims_table, exponents_table
from symplectic_bench.report.figures import growth, powers, rounding
from symplectic_bench.report.panels import FigureSpec
from symplectic_bench.report.suite_report import SuiteReport
from symplectic_bench.report.tables import gradients_table
from symplectic_bench.report.training_figures import training_figures
from symplectic_bench.report.training_tables import training_tables
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.suite import SUITES

FOLDER = SUITES / "paper"

Shown = tuple[list[Table], list[FigureSpec]]


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper.

    name is that of its suite file and the prefix of the names of its tables and figures, which `shows` makes from the
    suite's report.
    """

    name: str
    shows: Callable[[SuiteReport, str], Shown]

    @property
    def source(self) -> str:
        """The path of its suite file."""
        return str(FOLDER / f"{self.name}.toml")

    def shown(self, published: SuiteReport) -> Shown:
        """Return its tables, with the results of the paper's claims below them, and its figures."""
        tables, figures = self.shows(published, self.name)
        if published.claims:
            tables[0] = _with_notes(tables[0], claim_sentences(published.claims))
        return tables, [figure for figure in figures if figure.rows]


PREDICATES = {
    ClaimOutcome.HOLDS: "holds",
    ClaimOutcome.HOLDS_WHEN: "holds in part",
    ClaimOutcome.FAILS: "fails",
    ClaimOutcome.NOT_MEASURED: "was not measured",
}


def claim_sentences(claims: Sequence[ClaimResult]) -> list[str]:
    """Return a sentence for each claim."""
    sentences = []
    for result in claims:
        criteria = "; ".join(f"{one.criterion.name}: {support_text(one)}" for one in result.criteria)
        claim = f"Claim {result.claim.point}, {result.claim.name}"
        sentences.append(f"{claim}. Here it {PREDICATES[result.outcome]} ({criteria}).")
    return sentences


def _with_notes(table: Table, notes: Sequence[str]) -> Table:
    *others, last = table.sections
    return replace(table, sections=(*others, Section(last.heading, last.lines, (*last.notes, *notes))))


def _named(spec: FigureSpec, name: str, title: str = "") -> FigureSpec:
    return replace(spec, name=name, title=title or spec.title)


def _conditions(published: SuiteReport) -> str:
    """Return the part of a table's caption that gives the cells' settings, which the headings leave out."""
    rows = published.rows

    def every(axis: str) -> str:
        return " and ".join(dict.fromkeys(str(getattr(row, axis)) for row in rows))

    seeds = sorted({row.seed for row in rows})
    return (
        f"{every('problem')}, batch {every('batch')}, {every('dtype')}, {every('threads')} threads,"
        f" {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}."
    )


def _under_conditions(table: Table, published: SuiteReport, name: str) -> Table:
    caption = f"{table.caption} {_conditions(published)}"
    return replace(table, name=name, title=published.suite.title, caption=caption)


def training(published: SuiteReport, name: str) -> Shown:
    """Return the tables and figures of trained networks."""
    tables = training_tables(published.frame, published.where, name, published.suite.title)
    return tables, training_figures(published.frame, published.where, name)


def flows(published: SuiteReport, name: str) -> Shown:
    """Return the output of `training` and a figure of time and memory relative to symplectic's."""
    tables, figures = training(published, name)
    compared = _named(against_symplectic(published.frame, published.where), f"{name}-against-symplectic")
    return tables, [*figures, compared]


def methods(published: SuiteReport, name: str) -> Shown:
    """Return the tables of trained networks, and a figure of memory against the methods' stages."""
    tables = training_tables(published.frame, published.where, name, published.suite.title)
    return tables, [_named(stages(published.frame, published.where), f"{name}-memory")]


def costs(published: SuiteReport, name: str) -> Shown:
    """Return the exponents of the costs in terms of the sizes, or only the claims if nothing has been measured."""
    exponents, where = published.exponents, published.where
    if not exponents:
        return [replace(claims_table(published.claims, where), name=name)], []
    table = exponents_table(exponents, where)
    return [_under_conditions(table, published, name)], [_named(powers(exponents, where), f"{name}-exponents")]


def _listed(published: SuiteReport, name: str) -> list[Table]:
    table = gradients_table(published.frame, published.where)
    return [_under_conditions(table, published, name)]


def over_tolerances(published: SuiteReport, name: str) -> Shown:
    """Return a table of all gradients, and a figure of their errors and costs against the tolerance."""
    return _listed(published, name), [_named(tolerances(published.frame, published.where), name)]


def over_steps(published: SuiteReport, name: str) -> Shown:
    """Return a table of all gradients, and a figure of their costs against the number of steps."""
    return _listed(published, name), [_named(growth(published.frame, published.where), name, published.suite.title)]


def over_rounding(published: SuiteReport, name: str) -> Shown:
    """Return a table of all gradients, and a figure of their rounding errors."""
    return _listed(published, name), [_named(rounding(published.frame, published.where), name, published.suite.title)]


def over_budgets(published: SuiteReport, name: str) -> Shown:
    """Return a table of all gradients, and a figure of the costs of revolve against its number of checkpoints."""
    return _listed(published, name), [_named(budgets(published.frame, published.where), name)]


EXPERIMENTS = (
    Experiment("table1", costs),
    Experiment("table2", flows),
    Experiment("mali", training),
    Experiment("table3", methods),
    Experiment("table4", training),
    Experiment("tolerances", over_tolerances),
    Experiment("steps", over_steps),
    Experiment("precision", over_rounding),
    Experiment("budget", over_budgets),
    Experiment("masses", training),
    Experiment("classifier", training),
    Experiment("spiral", training),
    Experiment("robertson", training),
)
