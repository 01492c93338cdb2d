"""The comparison of two git revisions, each measured in its own worktree by its own suite."""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.analysis.baseline import TIME, Baseline, cells_of, lines_of_rows
from symplectic_bench.analysis.regression import Finding, compare
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import read_rows
from symplectic_bench.spec.status import Status


class RevisionError(RuntimeError):
    """A revision cannot be measured."""


@dataclass(frozen=True)
class Side:
    """One revision in its worktree."""

    revision: str
    commit: str
    tree: Path

    def measure(self, suite: str, scale: str, folder: Path) -> list[Measurement]:
        """Run the whole suite afresh with this revision's own code. Raise RevisionError if the run fails."""
        arguments = [
            "run",
            suite,
            "--scale",
            scale,
            "--fresh",
            "--results",
            str(folder),
            "--plots",
            str(folder / "plots"),
        ]
        done = self._python("-m", "benchmarks", *arguments)
        files = list(folder.glob("*/*/rows.jsonl"))
        if done.returncode != 0 or len(files) != 1:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            raise RevisionError(f"{self.revision}: run {suite} ended with exit code {done.returncode}:\n{said}")
        return read_rows(files[0]).rows

    @property
    def suite(self) -> Path:
        """The folder of its suite's package: benchmarks in earlier revisions, now benchmarks/symplectic_bench."""
        new = self.tree / "benchmarks" / "symplectic_bench"
        return new if new.is_dir() else new.parent

    def require_own_sources(self) -> None:
        """Raise RevisionError if a run in the worktree would not import its own library and suite."""
        program = (
            "import sys\n"
            "from importlib.util import find_spec\n"
            "for name in sys.argv[1:]: found = find_spec(name); print(found and found.origin or '')"
        )
        folders = (self.suite, self.tree / "symplectic_adjoint")
        done = self._python("-c", program, *(folder.name for folder in folders))
        for folder, origin in itertools.zip_longest(folders, done.stdout.splitlines(), fillvalue=""):
            if Path(origin).resolve() != (Path(folder) / "__init__.py").resolve():
                raise RevisionError(
                    f"{self.revision}: {Path(folder).name} would be imported from {origin or 'nowhere'}, not from its "
                    "worktree: uninstall that package, or run compare with another Python"
                )

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the worktree, with its packages ahead of any installed ones."""
        roots = dict.fromkeys(str(folder) for folder in (self.suite.parent, self.tree))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.tree, env=environment, capture_output=True, text=True
        )


@contextmanager
def checked_out(repository: Path, revisions: Sequence[str]) -> Iterator[tuple[list[Side], Path]]:
    """Check out the revisions in worktrees and yield these with a folder for results. Remove both at the end.

    Raise RevisionError for a revision that git does not know, or that is not of this project.
    """
    with tempfile.TemporaryDirectory(prefix="symplectic-bench-") as made:
        folder, sides = Path(made), []
        try:
            for place, revision in enumerate(revisions):
                commit = _git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
                tree = folder / f"tree-{place}"
                _git(repository, "worktree", "add", "--detach", str(tree), commit)
                sides.append(Side(revision, commit[:12], tree))
                if not (tree / "benchmarks" / "__main__.py").is_file():
                    raise RevisionError(f"{revision} has no benchmarks: compare measures revisions of this project")
                sides[-1].require_own_sources()
            yield sides, folder
        finally:
            for side in sides:
                subprocess.run(
                    ["git", "worktree", "remove", "--force", str(side.tree)], cwd=repository, capture_output=True
                )


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True)
    except FileNotFoundError as why:
        raise RevisionError("git is not installed: compare needs it to check out revisions") from why
    if done.returncode != 0:
        raise RevisionError(f"git {' '.join(arguments[:2])}: {done.stderr.strip() or 'no such revision'}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Comparison:
    """The findings on the second revision with the first as its baseline, and the times of both."""

    sides: Sequence[Side]
    findings: Sequence[Finding]
    cells: int
    times: Mapping[str, float]
    """By contender and gradient, the second's time as a multiple of the first's, averaged over cells and rounds."""


def compare_revisions(sides: Sequence[Side], suite: str, scale: str, rounds: int, folder: Path) -> Comparison:
    """Measure the two sides in turns, A B A B, so that a machine that slows down slows both.

    The findings are those of the first round, the times those of all rounds.
    """
    measured: list[list[list[Measurement]]] = [
        [side.measure(suite, scale, folder / f"round-{round}-{place}") for place, side in enumerate(sides)]
        for round in range(rounds)
    ]
    before, after = measured[0]
    baseline = Baseline([{**cell, TIME: None} for cell in cells_of(lines_of_rows(before))])
    return Comparison(sides, compare(after, baseline), len(baseline.cells), _times(measured))


def _times(measured: Sequence[Sequence[Sequence[Measurement]]]) -> dict[str, float]:
    ratios: dict[tuple[str, str], list[float]] = {}
    for before, after in measured:
        known = {row.cell_id: row.total_s for row in before if row.status is Status.OK and row.total_s}
        for row in after:
            if row.total_s and row.cell_id in known:
                ratios.setdefault((row.cell.name, row.cell_id), []).append(row.total_s / known[row.cell_id])
    by_name: dict[str, list[float]] = {}
    for (name, _), values in ratios.items():
        by_name.setdefault(name, []).append(statistics.median(values))
    return {name: statistics.geometric_mean(values) for name, values in by_name.items()}
