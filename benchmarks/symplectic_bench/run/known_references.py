"""The references of the standard problems that are stored in the package.

References from Taylor series are stored, since they need heyoka and may take minutes, and so is whatever takes a minute
for the suite of stiff problems. Others are computed when needed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from symplectic_bench.data.tables import cache_table
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.references.identity import identity
from symplectic_bench.references.store import KNOWN, best_reference, file_name, reference_file, reference_problem, save
from symplectic_bench.references.taylor import can_expand, taylor_reference
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.suite import Scale, load_suite

MOST_EQUATIONS = 4_000
"""The largest system that is expanded, in adjoint form and over all samples: it takes a minute."""


def standard_cells(suites: Sequence[str]) -> Iterator[Cell]:
    """Yield one cell per problem of these suites."""
    vocabulary, seen = load_vocabulary(), set[str]()
    for name in suites:
        for scale in (Scale.SMOKE, Scale.CPU):
            for cell in expand(load_suite(name).at_scale(scale), vocabulary):
                if cell.problem_id not in seen:
                    seen.add(cell.problem_id)
                    yield cell


def to_be_known(cell: Cell, cache_dir: Path) -> bool:
    """Return whether the reference of the cell's problem belongs in the package."""
    data = PROBLEMS[cell.problem].table(cell.sizes_dict)
    if data is not None:
        cache_table(data, cache_dir)
    problem = reference_problem(cell, cache_dir)
    return problem.solution is None and (is_of_stiff(cell) or can_expand(problem, MOST_EQUATIONS))


def is_of_stiff(cell: Cell) -> bool:
    """Return whether the cell is one of the suite of stiff problems, at any scale."""
    return cell.suite.partition("-")[0] == STIFF


def write(suites: Sequence[str], cache_dir: Path) -> Iterator[str]:
    """Write missing references and remove those of deleted problems, yielding one line of text for each."""
    current = set[str]()
    for cell in standard_cells(suites):
        if not to_be_known(cell, cache_dir):
            continue
        current.add(name := file_name(cell))
        problem = reference_problem(cell, cache_dir)
        if (file := reference_file(cell, cache_dir)) is not None and file.parent == KNOWN:
            continue
        try:
            reference = best_reference(problem, MOST_EQUATIONS) if is_of_stiff(cell) else taylor_reference(problem)
        except ArithmeticError as why:
            yield f"{name}: {why}"
            continue
        save(reference, identity(problem), KNOWN / name)
        yield f"{name}: known to within {reference.bar:.1e}"
    for file in KNOWN.glob("*.npz"):
        if file.name not in current:
            file.unlink()
            yield f"{file.name}: removed"


STIFF = "stiff"
"""The suite of whose problems all references are stored, from whatever source."""

STANDARD = ("accuracy", "quick", "rounding", STIFF)
"""The suites whose problems are the standard problems."""
