"""Writes the standard problems' references into the repository: python -m benchmarks.known_references accuracy quick

Only those that came of Taylor series, which need heyoka and may take minutes; what else there is is computed anywhere.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.cell import Cell
from benchmarks.expansion import expand
from benchmarks.suite import Scale, load_suite

MOST_EQUATIONS = 4_000
"""In adjoint form, all samples together: a minute."""


def standard_cells(suites: Sequence[str]) -> Iterator[Cell]:
    """One cell a problem."""
    from benchmarks.sweep import load_vocabulary

    vocabulary, seen = load_vocabulary(), set[str]()
    for name in suites:
        for scale in (Scale.SMOKE, Scale.CPU):
            for cell in expand(load_suite(name).at_scale(scale), vocabulary):
                if cell.problem_id not in seen:
                    seen.add(cell.problem_id)
                    yield cell


def known_name(cell: Cell, cache_dir: Path) -> str | None:
    """The file of the cell's problem, where it is to have one."""
    from benchmarks.references.store import file_name, reference_problem
    from benchmarks.references.taylor import can_be_expanded

    problem = reference_problem(cell, cache_dir)
    if problem.solution is not None or not can_be_expanded(problem, MOST_EQUATIONS):
        return None
    return file_name(cell.problem, problem)


def write(suites: Sequence[str], cache_dir: Path) -> Iterator[str]:
    """One line a reference that was written; those that belong to no problem any more are removed."""
    from benchmarks.references.store import KNOWN, reference_problem, save
    from benchmarks.references.taylor import expanded

    current = set[str]()
    for cell in standard_cells(suites):
        name = known_name(cell, cache_dir)
        if name is None:
            continue
        current.add(name)
        if (KNOWN / name).exists():
            continue
        try:
            reference = expanded(reference_problem(cell, cache_dir))
        except ArithmeticError as why:
            yield f"{cell.problem}: {why}"
            continue
        save(reference, KNOWN / name)
        yield f"{name}: known to {reference.bar:.1e}"
    for file in KNOWN.glob("*.npz"):
        if file.name not in current:
            file.unlink()
            yield f"{file.name}: removed"


STANDARD = ("accuracy", "quick", "rounding")
"""The suites whose problems are the standard ones."""

if __name__ == "__main__":
    for line in write(sys.argv[1:] or STANDARD, Path("results") / ".cache"):
        print(line, flush=True)
