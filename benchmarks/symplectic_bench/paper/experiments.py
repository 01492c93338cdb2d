"""The experiments in the paper's order, each with its tables and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from symplectic_bench.analysis.claims import ClaimOutcome, ClaimResult, support_text
from symplectic_bench.paper.figures import against_symplectic, budgets, stages, tolerances
from symplectic_bench.report.claim_tables import claims_table, exponents_table
from symplectic_bench.report.error_figures import rounding
from symplectic_bench.report.growth_figures import growth, powers
from symplectic_bench.report.panels import FigureSpec
from symplectic_bench.report.suite_report import SuiteReport
from symplectic_bench.report.tables import gradients_table
from symplectic_bench.report.training_figures import training_figures
from symplectic_bench.report.training_tables import training_tables
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.suite import SUITES, Scale, load_suite

FOLDER = SUITES / "paper"

Output = tuple[list[Table], list[FigureSpec]]


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper.

    name is that of its suite file and the prefix of the names of its tables and figures, which `make` makes from the
    suite's report.
    """

    name: str
    make: Callable[[SuiteReport, str], Output]

    @property
    def source(self) -> str:
        """The path of its suite file."""
        return str(FOLDER / f"{self.name}.toml")

    @property
    def scales(self) -> list[Scale]:
        """The scales that it has."""
        return load_suite(self.source).scales

    def output(self, report: SuiteReport) -> Output:
        """Return its tables, with the results of the paper's claims below them, and its figures."""
        tables, figures = self.make(report, self.name)
        if report.claims:
            tables[0] = _with_notes(tables[0], claim_sentences(report.claims))
        return tables, [figure for figure in figures if figure.blocks]


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


def _conditions(report: SuiteReport) -> str:
    """Return the part of a table's caption that gives the cells' settings, which the headings leave out."""
    rows = report.rows

    def every(axis: str) -> str:
        return " and ".join(dict.fromkeys(str(getattr(row, axis)) for row in rows))

    seeds = sorted({row.seed for row in rows})
    return (
        f"{every('problem')}, batch {every('batch')}, {every('dtype')}, {every('threads')} threads,"
        f" {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}."
    )


def _under_conditions(table: Table, report: SuiteReport, name: str) -> Table:
    caption = f"{table.caption} {_conditions(report)}"
    return replace(table, name=name, title=report.suite.title, caption=caption)


def training(report: SuiteReport, name: str) -> Output:
    """Return the tables and figures of trained networks."""
    tables = training_tables(report.frame, report.where, name, report.suite.title)
    return tables, training_figures(report.frame, report.where, name)


def flows(report: SuiteReport, name: str) -> Output:
    """Return the output of `training` and a figure of time and memory relative to symplectic's."""
    tables, figures = training(report, name)
    compared = _named(against_symplectic(report.frame, report.where), f"{name}-against-symplectic")
    return tables, [*figures, compared]


def methods(report: SuiteReport, name: str) -> Output:
    """Return the tables of trained networks, and a figure of memory against the methods' stages."""
    tables = training_tables(report.frame, report.where, name, report.suite.title)
    return tables, [_named(stages(report.frame, report.where), f"{name}-memory")]


def costs(report: SuiteReport, name: str) -> Output:
    """Return the exponents of the costs in terms of the sizes, or only the claims if nothing has been measured."""
    exponents, where = report.exponents, report.where
    if not exponents:
        return [replace(claims_table(report.claims, where), name=name)], []
    table = exponents_table(exponents, where)
    return [_under_conditions(table, report, name)], [_named(powers(exponents, where), f"{name}-exponents")]


def _listed(report: SuiteReport, name: str) -> list[Table]:
    table = gradients_table(report.frame, report.where)
    return [_under_conditions(table, report, name)]


def over_tolerances(report: SuiteReport, name: str) -> Output:
    """Return a table of all gradients, and a figure of their errors and costs against the tolerance."""
    return _listed(report, name), [_named(tolerances(report.frame, report.where), name)]


def over_steps(report: SuiteReport, name: str) -> Output:
    """Return a table of all gradients, and a figure of their costs against the number of steps."""
    return _listed(report, name), [_named(growth(report.frame, report.where), name, report.suite.title)]


def over_rounding(report: SuiteReport, name: str) -> Output:
    """Return a table of all gradients, and a figure of their rounding errors."""
    return _listed(report, name), [_named(rounding(report.frame, report.where), name, report.suite.title)]


def over_budgets(report: SuiteReport, name: str) -> Output:
    """Return a table of all gradients, and a figure of the costs of revolve against its number of checkpoints."""
    return _listed(report, name), [_named(budgets(report.frame, report.where), name)]


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
