"""The commands check and compare."""

import json
import re
import subprocess

import pytest

from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.run import sweep
from tests.symplectic_bench.command_line import REAL_VOCABULARY, at
from tests.symplectic_bench.sample_rows import an_environment


def test_check_is_green_on_its_own_baseline_and_red_on_a_planted_change(bench):
    assert bench("check", "small.toml") == Exit.NOTHING_RAN
    bench("run", "small.toml")
    assert bench("check", "small.toml") == Exit.BASELINE_MISSING
    assert bench("check", "small.toml", "--update") == Exit.DONE
    assert len((bench.folder / "results/baseline/small.jsonl").read_text().splitlines()) == 1 + 8
    assert bench("check", "small.toml") == Exit.DONE
    bench.changes = {"f_calls_backward": 1}
    bench("run", "small.toml", "--fresh", "--only", "gradient=aca", "--only", "rtol=1e-6")
    assert bench("check", "small.toml") == Exit.REGRESSION
    assert "ours aca regression f_calls_backward was 192, is 1 (allowed: no change)" in bench.output
    assert "8 cells of the baseline compared, 1 regression" in bench.output and "regressions" not in bench.output


def test_a_cell_is_named_once_above_all_its_findings(bench):
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    bench.changes = {"f_calls_backward": 1, "vjps_backward": 2, "error_discrete": 1.23456789e-3}
    bench("run", "small.toml", "--fresh", "--only", "gradient=aca", "--only", "rtol=1e-6")
    assert bench("check", "small.toml") == Exit.REGRESSION
    assert bench.output.count("ours aca") == 1 and "is 0.00123 (allowed" in bench.output
    assert "3 regressions" in bench.output


def test_messages_name_the_folders_that_there_are(bench):
    assert bench("tables", "small.toml") == Exit.NOTHING_RAN
    assert "no rows in results/small:" in bench.output
    assert bench("check", "small.toml", "--results", "other") == Exit.NOTHING_RAN
    assert "no rows in other/small/" in bench.output
    bench("run", "small.toml")
    assert bench("check", "small.toml") == Exit.BASELINE_MISSING
    assert "no baseline results/baseline/small.jsonl: record one" in bench.output
    assert bench("tables", "small.toml", "--environment", "nowhere") == Exit.USAGE
    assert "no environment 'nowhere' in results/small (there are:" in bench.output


def test_a_baseline_names_the_kinds_of_processors_on_which_its_counts_were_found(bench, monkeypatch):
    def updated(kind, **changes):
        at(monkeypatch, an_environment(cpu_kind=kind))
        bench.changes = changes
        bench("run", "small.toml", "--fresh")
        assert bench("check", "small.toml", "--update") == Exit.DONE
        return json.loads((bench.folder / "results/baseline/small.jsonl").read_text().splitlines()[0])["kinds"]

    assert updated("Some AVX2") == ["Some AVX2"]
    assert updated("Other AVX512", error_true=0.5) == ["Other AVX512", "Some AVX2"]  # the same counts
    assert updated("Third SVE", steps_accepted=7) == ["Third SVE"]  # other counts, found on this kind only


def test_on_another_kind_a_check_says_what_it_does_not_compare_in_full(bench, monkeypatch):
    bench.changes = {"steps_accepted": 20}
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    at(monkeypatch, an_environment(cpu_kind="Other AVX512"))
    for steps, expected in ((21, Exit.DONE), (22, Exit.REGRESSION)):
        bench.changes = {"steps_accepted": steps}
        bench("run", "small.toml", "--fresh")
        assert bench("check", "small.toml", "--markdown", "summary.md") == expected
        for text in (bench.output, (bench.folder / "summary.md").read_text()):
            assert "checked on Some AVX2, not on Other AVX512" in text


def test_rows_from_another_environment_do_not_count(bench, monkeypatch):
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    at(monkeypatch, an_environment(cpu="Another CPU"))
    assert bench("check", "small.toml") == Exit.NOTHING_RAN
    assert bench("check", "small.toml", "--environment", an_environment().id) == Exit.DONE


def test_part_of_a_suite_cannot_be_a_baseline(bench):
    bench("run", "small.toml", "--only", "gradient=aca")
    assert bench("check", "small.toml", "--update") == Exit.FAILURE
    assert "run all of it first" in bench.output


def test_a_cell_that_has_lost_its_row_is_a_regression(bench):
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    rows = next(bench.folder.glob("results/small/*/rows.jsonl"))
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    assert bench("check", "small.toml") == Exit.REGRESSION
    assert "no row" in bench.output


def test_check_writes_a_summary_and_requires_a_line_in_the_changelog(bench):
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    line = re.search(r"- Baseline small ([0-9a-f]{8})", bench.output)
    assert line is not None
    (bench.folder / "CHANGELOG.md").write_text("nothing\n")
    arguments = ("check", "small.toml", "--markdown", "summary.md", "--changelog", "CHANGELOG.md")
    assert bench(*arguments) == Exit.REGRESSION and "no line that says why" in bench.output
    (bench.folder / "CHANGELOG.md").write_text(f"{line[0]}: the first.\n")
    assert bench(*arguments) == Exit.DONE
    assert "### small: no regression" in (bench.folder / "summary.md").read_text()


def test_time_fails_a_check_only_on_request(bench):
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    bench.changes = {"total_s": 9.0}
    bench("run", "small.toml", "--fresh", "--only", "gradient=aca", "--only", "rtol=1e-6")
    assert bench("check", "small.toml") == Exit.DONE and "slower" in bench.output
    assert bench("check", "small.toml", "--time") == Exit.REGRESSION


def test_checking_nothing_is_bad_usage(bench):
    assert bench("check") == Exit.USAGE
    assert bench("check", "--problem", "nocolon") == Exit.USAGE
    assert bench("check", "--micro", "nowhere.json") == Exit.FAILURE


def test_revisions_unknown_to_git_are_reported(bench):
    assert bench("compare", "nowhere", "HEAD") == Exit.FAILURE
    assert "nowhere: fatal: not a git repository" in bench.output
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    for revisions in (("nosuch", "HEAD"), ("HEAD", "nosuch"), ("nosuch", "nosuch")):
        assert bench("compare", *revisions) == Exit.USAGE
        assert "no such revision 'nosuch': give a branch, a tag or a commit" in bench.output


def test_a_revision_compared_with_itself_is_equal_and_not_measured(bench):
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert bench("compare", "HEAD", "HEAD") == Exit.DONE
    assert bench.output.startswith("HEAD: the same commit, ") and "they are equal" in bench.output
    assert bench("compare", "HEAD", "main", "--markdown", "summary.md") == Exit.DONE
    assert bench.output.startswith("HEAD and main: the same commit, ")
    assert "they are equal" in (bench.folder / "summary.md").read_text()


def test_rows_of_a_cell_removed_from_the_suite_do_not_count(bench):
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    suite = bench.folder / "small.toml"
    suite.write_text(suite.read_text().replace('"baseline", "aca"', '"aca"'))
    bench("run", "small.toml")  # into the folder that still has the rows
    assert bench("check", "small.toml") == Exit.REGRESSION
    assert "ours baseline" in bench.output and "no row" in bench.output


@pytest.mark.parametrize("path", ["nocolon", ":f", "m:", ".m:f", "a b:f", "nowhere_at_all:f", "math:hypot", "math:pi"])
def test_an_invalid_problem_is_bad_usage(bench, path, monkeypatch):
    monkeypatch.setattr(sweep, "load_vocabulary", REAL_VOCABULARY)
    for suite in ((), ("small.toml",)):
        assert bench("check", *suite, "--problem", path) == Exit.USAGE
        assert f"problem {path}:" in bench.output
