"""The comparison of two git revisions, each measured in its own worktree by its own suite."""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.analysis.baseline import TIME, Baseline, cells_of, lines_of_rows
from symplectic_bench.analysis.regression import Finding, compare
from symplectic_bench.rows.environment import without_repository
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import read_rows
from symplectic_bench.spec.status import Status


class RevisionError(RuntimeError):
    """A revision cannot be measured."""


class UnknownRevision(RevisionError):
    """git knows no revision of that name."""


class NotInGit(RevisionError):
    """git refused, with this message."""


@dataclass(frozen=True)
class Side:
    """One revision in its worktree."""

    revision: str
    commit: str
    tree: Path
    elsewhere: Path  # the folder where compare runs, for a user's problem that is not in a revision of this project

    def measure(self, suite: Sequence[str], scale: str, folder: Path) -> list[Measurement]:
        """Run the whole suite afresh with this revision's own code. Raise RevisionError if the run fails."""
        arguments = [
            "run",
            *suite,
            "--scale",
            scale,
            "--fresh",
            "--results",
            str(folder),
            "--plots",
            str(folder / "plots"),
        ]
        done = self._python("-m", "benchmarks" if self.is_of_this_project else "symplectic_bench", *arguments)
        files = list(folder.glob("*/*/rows.jsonl"))
        if done.returncode != 0 or len(files) != 1:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            run = f"run {' '.join(suite)}"
            raise RevisionError(f"{self.revision}: {run} ended with exit code {done.returncode}:\n{said}")
        return read_rows(files[0]).rows

    @property
    def is_of_this_project(self) -> bool:
        """Whether it has a library and a suite of its own, and is not of a user's project."""
        return (self.tree / "benchmarks" / "__main__.py").is_file()

    @property
    def suite(self) -> Path:
        """The folder of its suite's package: benchmarks in earlier revisions, now benchmarks/symplectic_bench."""
        new = self.tree / "benchmarks" / "symplectic_bench"
        return new if new.is_dir() else new.parent

    @property
    def packages(self) -> Sequence[Path]:
        """The folders of this project's packages; none in a user's project."""
        return (self.suite, self.tree / "symplectic_adjoint") if self.is_of_this_project else ()

    def require_own_sources(self, problem: str | None) -> None:
        """Raise RevisionError if a run in the worktree would import something else than its own library and suite.

        In a user's project these are the installed ones, and the module of the problem must be the worktree's own.
        """
        if not self.is_of_this_project:
            return self._require_own_problem(problem)
        program = (
            "import sys\n"
            "from importlib.util import find_spec\n"
            "for name in sys.argv[1:]: found = find_spec(name); print(found and found.origin or '')"
        )
        done = self._python("-c", program, *(folder.name for folder in self.packages))
        for folder, origin in itertools.zip_longest(self.packages, done.stdout.splitlines(), fillvalue=""):
            if Path(origin).resolve() != (Path(folder) / "__init__.py").resolve():
                raise RevisionError(
                    f"{self.revision}: {Path(folder).name} would be imported from {origin or 'nowhere'}, not from its "
                    "worktree: uninstall that package, or run compare with another Python"
                )

    def _require_own_problem(self, problem: str | None) -> None:
        if problem is None:
            what = "compare measures revisions of this project, or with --problem of yours"
            raise RevisionError(f"{self.revision} has no benchmarks: {what}")
        package = problem.partition(":")[0].partition(".")[0]
        program = (
            "import sys\n"
            "from importlib.util import find_spec\n"
            "found = find_spec(sys.argv[1])\n"
            "print(*([] if found is None else found.submodule_search_locations or [found.origin]), sep='\\n')"
        )
        found = [line for line in self._python("-c", program, package).stdout.splitlines() if line]
        if not found or not Path(found[0]).resolve().is_relative_to(self.tree.resolve()):
            place = f"would be imported from {found[0]}" if found else "is not there"
            raise RevisionError(
                f"{self.revision}: {package} {place}, not from the worktree of this revision: commit it"
            )

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the worktree, with its packages ahead of any installed ones."""
        own = (
            (self.suite.parent, self.tree, self.elsewhere)
            if self.is_of_this_project
            else (self.tree / "src", self.tree)
        )
        roots = dict.fromkeys([*map(str, own), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.tree, env=environment, capture_output=True, text=True
        )


@contextmanager
def checked_out(
    repository: Path, revisions: Sequence[str], problem: str | None = None
) -> Iterator[tuple[list[Side], Path]]:
    """Check out the revisions in worktrees and yield these with a folder for results. Remove both at the end.

    Raise RevisionError for a revision that git does not know, or that is neither of this project nor of a user's that
    has the problem.
    """
    with tempfile.TemporaryDirectory(prefix="symplectic-bench-") as made:
        folder, sides = Path(made), []
        try:
            for place, revision in enumerate(revisions):
                commit = commit_of(repository, revision)
                tree = folder / f"tree-{place}"
                _git(repository, "worktree", "add", "--detach", str(tree), commit)
                sides.append(Side(revision, commit[:12], tree, repository))
                sides[-1].require_own_sources(problem)
            yield sides, folder
        finally:
            for side in sides:
                with suppress(RevisionError):
                    _git(repository, "worktree", "remove", "--force", str(side.tree))


def commit_of(repository: Path, revision: str) -> str:
    """Return the commit that a revision names. Raise UnknownRevision if there is none."""
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    try:
        return _git(repository, *asked)
    except NotInGit as why:
        if str(why):
            raise RevisionError(f"{revision}: {why}") from why
        what = f"no such revision {revision!r}: give a branch, a tag or a commit of this repository"
        raise UnknownRevision(what) from why


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=repository, env=without_repository(), capture_output=True, text=True
        )
    except FileNotFoundError as why:
        raise RevisionError("git is not installed: compare needs it to check out revisions") from why
    if done.returncode < 0:
        raise RevisionError(f"git {arguments[0]} was ended by signal {-done.returncode}: run the command again")
    if done.returncode != 0:
        raise NotInGit(done.stderr.strip())
    return done.stdout.strip()


@dataclass(frozen=True)
class Comparison:
    """The findings on the second revision with the first as its baseline, and the times of both."""

    sides: Sequence[Side]
    findings: Sequence[Finding]
    cells: int
    times: Mapping[str, float]
    """By contender and gradient, the second's time as a multiple of the first's, averaged over cells and rounds."""


def compare_revisions(sides: Sequence[Side], suite: Sequence[str], scale: str, rounds: int, folder: Path) -> Comparison:
    """Measure the two sides in turns, A B A B, so that a machine that slows down slows both.

    suite: the arguments of run that choose it.
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
