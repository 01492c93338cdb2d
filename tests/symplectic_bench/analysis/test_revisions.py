"""Two git revisions: what is checked out, whose code runs, and what is compared."""

import subprocess
import sys
from dataclasses import replace

import pytest

from symplectic_bench.analysis.revisions import RevisionError, Side, checked_out, compare_revisions
from symplectic_bench.rows.store import writing
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row, group

SUITE, LIBRARY = "benchmarks/symplectic_bench", "symplectic_adjoint"


def git(folder, *arguments):
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def write_sources(folder, suite=SUITE):
    for package in ("benchmarks", suite, LIBRARY):
        (folder / package).mkdir(parents=True, exist_ok=True)
        (folder / package / "__init__.py").touch()
    (folder / "benchmarks/__main__.py").touch()


@pytest.fixture
def repository(tmp_path):
    """Two revisions: the first one, "old", has neither library nor suite."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "Start")
    git(folder, "tag", "old")
    write_sources(folder)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Add the suite")
    return folder


def worktrees(repository):
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, check=True, capture_output=True, text=True)
    return listed.stdout.splitlines()


class TestCheckedOut:
    def test_each_revision_has_a_worktree_which_ends_with_the_block(self, repository):
        with checked_out(repository, ["HEAD", "HEAD"]) as (sides, folder):
            assert [side.revision for side in sides] == ["HEAD", "HEAD"]
            assert {len(side.commit) for side in sides} == {12}
            assert len({side.tree for side in sides}) == 2
            assert all((side.tree / SUITE / "__init__.py").exists() for side in sides)
            assert len(worktrees(repository)) == 3
        assert not folder.exists()
        assert len(worktrees(repository)) == 1

    def test_a_revision_without_the_suite_is_refused_and_leaves_no_worktree(self, repository):
        with pytest.raises(RevisionError, match="old has no benchmarks"), checked_out(repository, ["HEAD", "old"]):
            pass
        assert len(worktrees(repository)) == 1

    def test_a_revision_that_git_does_not_know_is_refused(self, repository):
        with pytest.raises(RevisionError, match="no such revision"), checked_out(repository, ["nowhere"]):
            pass

    def test_the_repository_is_that_of_the_folder_whatever_the_environment_names(
        self, repository, tmp_path, monkeypatch
    ):
        (tmp_path / "another").mkdir()
        git(tmp_path / "another", "init", "-q")
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "another/.git"))  # as git sets it for its hooks
        with checked_out(repository, ["HEAD"]) as (sides, _):
            assert (sides[0].tree / SUITE / "__init__.py").exists()
        monkeypatch.delenv("GIT_DIR")
        assert len(worktrees(repository)) == 1

    def test_a_system_without_git_says_so(self, repository, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(RevisionError, match="git is not installed"), checked_out(repository, ["HEAD"]):
            pass

    def test_a_git_that_is_killed_is_a_failure(self, repository, tmp_path, monkeypatch):
        (tmp_path / "git").write_text("#!/bin/sh\nkill -9 $$\n")
        (tmp_path / "git").chmod(0o700)
        monkeypatch.setenv("PATH", str(tmp_path))
        with (
            pytest.raises(RevisionError, match="git rev-parse was ended by signal 9"),
            checked_out(repository, ["HEAD"]),
        ):
            pass


class TestSources:
    @pytest.mark.parametrize("suite", [SUITE, "benchmarks"], ids=["now", "in earlier revisions"])
    def test_a_worktree_that_has_all_its_packages_is_accepted(self, tmp_path, suite):
        write_sources(tmp_path, suite)
        Side("HEAD", "0" * 12, tmp_path, tmp_path).require_own_sources(None)

    def test_a_package_that_is_nowhere_is_refused(self, tmp_path, monkeypatch):
        write_sources(tmp_path)
        (tmp_path / LIBRARY / "__init__.py").unlink()
        monkeypatch.delenv("PYTHONPATH", raising=False)
        # -S leaves out whatever is installed.
        alone = tmp_path / "python"
        alone.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        alone.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(alone))
        with pytest.raises(RevisionError, match=f"{LIBRARY} would be imported from nowhere, not from its worktree"):
            Side("HEAD", "0" * 12, tmp_path, tmp_path).require_own_sources(None)

    @pytest.mark.parametrize("missing", [SUITE, LIBRARY])
    def test_a_package_that_would_come_from_elsewhere_is_refused(self, tmp_path, missing):
        write_sources(tmp_path)
        (tmp_path / missing / "__init__.py").unlink()
        with pytest.raises(RevisionError, match=f"{missing.split('/')[-1]} would be imported from"):
            Side("HEAD", "0" * 12, tmp_path, tmp_path).require_own_sources(None)


class TestMeasure:
    """The suite of the worktree is a program that prints, and ends with an exit code."""

    def measured(self, tree, program):
        write_sources(tree)
        (tree / "benchmarks/__main__.py").write_text(program)
        return Side("HEAD", "0" * 12, tree, tree).measure(["quick"], "smoke", tree / "results")

    def test_a_run_that_fails_is_reported_with_its_last_lines(self, tmp_path):
        program = "import sys\nprint('first')\nprint(*'abcde', sep='\\n')\nsys.exit(3)"
        with pytest.raises(RevisionError, match=r"HEAD: run quick ended with exit code 3:\na\nb\nc\nd\ne$"):
            self.measured(tmp_path, program)

    def test_a_run_without_rows_is_reported(self, tmp_path):
        with pytest.raises(RevisionError, match="exit code 0"):
            self.measured(tmp_path, "")

    def test_a_run_gives_the_rows_that_it_wrote(self, tmp_path):
        with writing(tmp_path / "before") as writer:
            writer.append(a_row())
        text = (tmp_path / "before/rows.jsonl").read_text()
        program = "import pathlib, sys\nhere = pathlib.Path(sys.argv[sys.argv.index('--results') + 1], 'quick/here')\n"
        program += f"here.mkdir(parents=True)\n(here / 'rows.jsonl').write_text({text!r})"
        assert self.measured(tmp_path / "tree", program) == [a_row()]

    def test_the_arguments_are_those_of_a_fresh_run_of_the_suite(self, tmp_path):
        program = "import sys\nprint(*sys.argv[1:])\nsys.exit(1)"
        with pytest.raises(RevisionError, match=r"run quick --scale smoke --fresh --results .*results --plots .*plots"):
            self.measured(tmp_path, program)

    def test_the_worktrees_own_packages_come_first(self, tmp_path):
        program = f"import {LIBRARY}, symplectic_bench\nprint({LIBRARY}.__file__, symplectic_bench.__file__)\nexit(1)"
        with pytest.raises(RevisionError, match=f"{tmp_path}/{LIBRARY}/__init__.py {tmp_path}/{SUITE}/__init__.py"):
            self.measured(tmp_path, program)


class Stub:
    """A side whose runs give rows made beforehand, and say so to a log."""

    def __init__(self, name, log, *runs):
        self.name, self._log, self._runs = name, log, iter(runs)

    def measure(self, suite, scale, folder):
        self._log.append((self.name, suite, scale, folder.name))
        return next(self._runs)


def timed(seconds, *rows):
    return [replace(row, total_s=seconds) for row in rows]


class TestCompared:
    AT_ONE, AT_TWO = a_row(), a_row(a_cell(rtol=1e-3))

    def compared(self, *rounds, folder):
        """Compare sides by (before, after) of each round."""
        log = []
        sides = [Stub(name, log, *runs) for name, runs in zip("AB", zip(*rounds, strict=True), strict=True)]
        return compare_revisions(sides, "quick", "smoke", len(rounds), folder), log

    def test_the_sides_are_measured_in_turns(self, tmp_path):
        rows = [self.AT_ONE]
        _, log = self.compared((rows, rows), (rows, rows), folder=tmp_path)
        assert log == [(side, "quick", "smoke", f"round-{n}-{i}") for n in (0, 1) for i, side in enumerate("AB")]

    def test_equal_rows_have_no_findings(self, tmp_path):
        comparison, _ = self.compared((group(), group()), folder=tmp_path)
        assert comparison.findings == [] and comparison.cells == 9
        assert set(comparison.times.values()) == {1.0}

    def test_findings_are_of_the_second_side_and_times_are_not_among_them(self, tmp_path):
        after = timed(90.0, replace(self.AT_ONE, f_calls_forward=self.AT_ONE.f_calls_forward + 1))
        comparison, _ = self.compared(([self.AT_ONE], after), folder=tmp_path)
        assert [finding.metric for finding in comparison.findings] == ["f_calls_forward"]

    def test_a_time_is_the_mean_over_cells_of_the_median_over_rounds(self, tmp_path):
        both = (self.AT_ONE, self.AT_TWO)
        # Ratios 2, 4, 3 of one cell and 12, 12, 12 of the other: medians 3 and 12, whose geometric mean is 6.
        rounds = [
            (timed(1.0, *both), [*timed(slower, self.AT_ONE), *timed(12.0, self.AT_TWO)]) for slower in (2.0, 4.0, 3.0)
        ]
        comparison, _ = self.compared(*rounds, folder=tmp_path)
        # The root of 36 to rounding.
        assert comparison.times == {"ours symplectic": pytest.approx(6.0, rel=1e-14)}

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([replace(AT_ONE, status=Status.DIVERGED)], [AT_ONE]),
            ([replace(AT_ONE, total_s=None)], [AT_ONE]),
            ([AT_ONE], [replace(AT_ONE, total_s=None)]),
            ([AT_ONE], [AT_TWO]),
        ],
        ids=["failed before", "untimed before", "untimed after", "another cell"],
    )
    def test_a_cell_without_both_times_has_no_multiple(self, before, after, tmp_path):
        assert self.compared((before, after), folder=tmp_path)[0].times == {}
