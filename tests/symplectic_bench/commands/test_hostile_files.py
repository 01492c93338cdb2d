"""Files that are missing, no files, unreadable or nonsense: a sentence and an exit code, never a traceback.

`bench` raises whatever a command does not handle.
"""

import errno
import itertools
import json
import os
import shutil
from pathlib import Path

import pytest

from symplectic_bench.commands import exit_codes
from symplectic_bench.commands.check import Exit, with_summary
from tests.symplectic_bench.sample_rows import an_environment

LONG = "x" * 300
ENVIRONMENT = f"results/small/{an_environment().id}"


@pytest.fixture
def measured(bench):
    """Return the command line, with rows and a baseline."""
    bench("run", "small.toml")
    bench("check", "small.toml", "--update")
    return bench


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def gone(path):
    remove(path)


def a_file(path):
    remove(path)
    path.write_text("x")


def a_folder(path):
    remove(path)
    (path / "inside").mkdir(parents=True)


def a_looping_link(path):
    remove(path)
    path.symlink_to(path.name)


def holding(content):
    def put(path):
        remove(path)
        path.write_bytes(content)

    return put


NONSENSE = {
    "empty": b"",
    "latin-1": b"gr\xfc\xdfe",
    "utf-16": "größe".encode("utf-16"),
    "zeros": b"\0" * 20,
    "list": b"[]",
    "deep": b"[" * 100_000,
    "huge": b"9" * 10_000,
    "number": b"3",
    "object": b"{}",
    "null": b"null",
    "infinite": b"1e999",
}
CONTENTS = [pytest.param(holding(content), id=name) for name, content in NONSENSE.items()]
KINDS = [gone, a_file, a_folder, a_looping_link]

COMMANDS = [
    ("run", "small.toml"),
    ("tables", "small.toml"),
    ("tables", "small.toml", "--parquet"),
    ("plots", "small.toml"),
    ("report", "small.toml"),
    ("check", "small.toml"),
    ("check", "small.toml", "--update"),
]
ENDS = {Exit.DONE, Exit.FAILURE, Exit.USAGE, Exit.NOTHING_RAN, Exit.BASELINE_MISSING, Exit.REGRESSION}


def explains(bench, code):
    """Return whether the command has succeeded, or has said what to do about it."""
    advice = (
        "remove",
        "restore",
        "choose",
        "run ",
        "record",
        "measure",
        "give",
        "no row",
        "UTF-8",
        "regressions",
        "is a file",
    )
    return code in ENDS and (code == Exit.DONE or any(word in bench.output for word in advice))


@pytest.mark.parametrize("put", KINDS + CONTENTS)
@pytest.mark.parametrize("file", ["environment.json", "cells.txt", "rows.jsonl", ".lock"])
def test_whatever_lies_in_the_folder_of_rows_is_answered(measured, file, put):
    copy = measured.folder / "good"
    shutil.copytree("results", copy)
    for command in (COMMANDS[0], COMMANDS[1], COMMANDS[5]):
        remove(Path("results"))
        shutil.copytree(copy, "results")
        put(Path(ENVIRONMENT) / file)
        assert explains(measured, measured(*command)), (command, measured.output)


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize(
    "place",
    [
        *("results", "results/small", ENVIRONMENT, "results/small/tables", "results/small/tables/overview.csv"),
        *("results/small/README.md", "results/small/rows.parquet", "results/baseline", "results/baseline/small.jsonl"),
        *("plots", "results/.cache"),
    ],
)
def test_whatever_lies_in_the_place_of_results_is_answered(measured, place, put):
    copy = measured.folder / "good"
    shutil.copytree("results", copy)
    for command in COMMANDS:
        remove(Path("results"))
        shutil.copytree(copy, "results")
        put(Path(place))
        assert explains(measured, measured(*command)), (command, measured.output)


@pytest.mark.parametrize("content", [*NONSENSE.values(), b'{"tolerances": {}, "time": {}}', b"\n\n"])
def test_a_baseline_that_is_none_is_said_and_can_be_recorded_anew(measured, content):
    holding(content)(Path("results/baseline/small.jsonl"))
    assert measured("check", "small.toml") == Exit.FAILURE
    assert "small.jsonl is not a baseline" in measured.output
    assert measured("check", "small.toml", "--update") == Exit.DONE


@pytest.mark.parametrize("content", NONSENSE.values())
def test_a_micro_file_that_is_none_is_said(bench, content):
    Path("micro.json").write_bytes(content)
    assert bench("check", "--micro", "micro.json") == Exit.FAILURE
    assert "is not a pytest-benchmark file" in bench.output


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("median", 10**400),
        ("median", "1e999"),
        ("median", -1.0),
        ("median", None),
        ("median", True),
        ("f_calls_forward", "many"),
        ("f_calls_forward", [1]),
        ("error_true", -1.0),
    ],
)
def test_a_micro_file_with_impossible_numbers_is_said(bench, key, value):
    own = {"name": "test_reference", "stats": {"median": 1.0}, "extra_info": {}}
    (own["stats"] if key == "median" else own["extra_info"])[key] = value
    Path("micro.json").write_text(json.dumps({"benchmarks": [own]}))
    assert bench("check", "--micro", "micro.json", "--update") == Exit.FAILURE
    assert "is not a pytest-benchmark file" in bench.output


@pytest.mark.parametrize("name", [LONG, LONG + ".toml", "/", "results", "a\0b", "/dev/null.toml", "x/" * 3000])
@pytest.mark.parametrize("command", ["run", "tables", "plots", "report", "check"])
def test_a_suite_that_cannot_be_a_file_is_bad_usage(bench, command, name):
    assert bench(command, name) == Exit.USAGE
    assert "no suite" in bench.output


@pytest.mark.parametrize("put", [*KINDS[1:], *CONTENTS])
@pytest.mark.parametrize("command", ["run", "tables", "plots", "report", "check"])
def test_a_suite_file_of_any_content_is_bad_usage(bench, command, put):
    put(Path("other.toml"))
    assert bench(command, "other.toml") == Exit.USAGE
    assert "other.toml" in bench.output


FULL = ["/dev/full"] if Path("/dev/full").is_char_device() else []  # elsewhere root would make a folder of that name
PLACES = [LONG, "small.toml", "small.toml/x", "a/" * 3000 + "x", "/proc/nowhere", "/dev/null", *FULL]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "command",
    [
        *(("run", "small.toml", option) for option in ("--results", "--plots")),
        *(("report", "small.toml", option) for option in ("--results", "--plots")),
        *(("check", "small.toml", option) for option in ("--results", "--baseline")),
        ("check", "small.toml", "--update", "--baseline"),
        ("tables", "small.toml", "--results"),
    ],
    ids=" ".join,
)
def test_a_folder_that_cannot_be_one_is_answered(measured, command, place):
    code = measured(*command, place)
    # Figures are not drawn here, so a folder of plots is never made.
    assert (
        (code == Exit.DONE and "--plots" in command)
        or (code != Exit.DONE and explains(measured, code))
        or (code == Exit.USAGE and "is a file" in measured.output)
    )


@pytest.mark.parametrize("id", [LONG, "../..", "", "a/b", ".", "x" * 5000])
def test_an_environment_that_cannot_be_one_has_no_rows(measured, id):
    assert measured("check", "small.toml", "--environment", id) == Exit.NOTHING_RAN
    assert measured("tables", "small.toml", "--environment", id) == Exit.USAGE


class TestSummary:
    """--markdown."""

    @pytest.fixture(params=["missing/summary.md", LONG, "small.toml/x.md", "/proc/nowhere", *FULL, "loop.md"])
    def unwritable(self, request, bench):
        a_looping_link(Path("loop.md"))
        return request.param

    def test_a_regression_keeps_its_code_and_the_failure_to_write_is_said(self, measured, unwritable):
        measured.changes = {"f_calls_backward": 1}
        measured("run", "small.toml", "--fresh")
        assert measured("check", "small.toml", "--markdown", unwritable) == Exit.REGRESSION
        assert "8 regressions" in measured.output and "then run the command again" in measured.output

    def test_a_check_that_finds_nothing_fails_for_it(self, measured, unwritable):
        assert measured("check", "small.toml", "--markdown", unwritable) == Exit.FAILURE
        assert "0 regressions" in measured.output and "then run the command again" in measured.output

    def test_a_missing_baseline_keeps_its_code(self, measured, unwritable):
        remove(Path("results/baseline/small.jsonl"))
        assert measured("check", "small.toml", "--markdown", unwritable) == Exit.BASELINE_MISSING

    def test_a_device_is_written_to_and_not_replaced(self, measured):
        assert measured("check", "small.toml", "--markdown", "/dev/null") == Exit.DONE
        assert not Path("/dev/null").is_file()

    @pytest.mark.parametrize("code", list(Exit))
    def test_every_code_but_success_is_kept(self, tmp_path, code):
        assert with_summary(code, tmp_path / "no" / "file", "text") == (code or Exit.FAILURE)
        assert with_summary(code, tmp_path / "file", "text") == code
        assert (tmp_path / "file").read_text() == "text"
        assert with_summary(code, None, "text") == code


@pytest.mark.parametrize("put", [gone, a_folder, a_looping_link, *CONTENTS])
def test_a_changelog_of_any_kind_has_no_line(measured, put):
    put(Path("CHANGELOG.md"))
    assert measured("check", "small.toml", "--changelog", "CHANGELOG.md") == Exit.REGRESSION
    assert "CHANGELOG.md has no line" in measured.output


def test_a_changelog_in_another_encoding_may_have_the_line(measured):
    measured("check", "small.toml", "--update")
    line = measured.output[measured.output.index("- Baseline") :]
    Path("CHANGELOG.md").write_bytes(f"größer: {line}\n".encode("latin-1"))
    assert measured("check", "small.toml", "--changelog", "CHANGELOG.md") == Exit.DONE


@pytest.mark.parametrize("name", [LONG, "small.toml/x", "results"])
def test_a_changelog_that_cannot_be_read_leaves_a_regression_one(measured, name):
    assert measured("check", "small.toml", "--changelog", name) == Exit.REGRESSION


@pytest.mark.parametrize("content", [b"\xff", b"jobs = " + b"9" * 5000, b"jobs = 0", b"a = " + b"[" * 5000])
def test_options_of_a_cluster_that_are_none_are_bad_usage(bench, content):
    Path("options.toml").write_bytes(content)
    assert bench("run", "small.toml", "--cluster", "slurm", "--cluster-options", "options.toml") == Exit.USAGE
    assert "options.toml" in bench.output


@pytest.mark.parametrize("name", [LONG, "results", "small.toml/x", "loop"])
@pytest.mark.parametrize(
    "options",
    [("--cluster", "slurm", "--cluster-options"), ("--scheduler", "tls://a:1", "--tls-ca"), ("--data-dir",)],
    ids=" ".join,
)
def test_a_file_that_an_option_names_in_vain_is_bad_usage(bench, options, name):
    a_looping_link(Path("loop"))
    suite = "small.toml" if options != ("--data-dir",) else "paper/mali"
    assert bench("run", suite, *options, name) == Exit.USAGE


@pytest.mark.parametrize("put", [holding(b"[]"), holding(b"{}"), a_folder], ids=["list", "object", "folder"])
@pytest.mark.parametrize("file", ["rows.jsonl", "environment.json"])
def test_broken_rows_of_another_experiment_of_the_paper_are_said(measured, file, put):
    folder = Path("results/paper-smoke/rows/mali-smoke") / an_environment().id
    shutil.copytree(ENVIRONMENT, folder)
    put(folder / file)
    assert measured("paper", "masses", "--scale", "smoke", "--show") == Exit.FAILURE
    assert explains(measured, Exit.FAILURE)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("portraits", "nosuch"), Exit.USAGE),
        (("portraits", "lorenz", "--folder", "small.toml/x"), Exit.FAILURE),
        (("portraits", "lorenz", "--folder", LONG), Exit.FAILURE),
        (("references", "nosuch"), Exit.USAGE),
        (("references", LONG), Exit.USAGE),
    ],
)
def test_commands_for_maintainers_end_in_a_sentence_too(bench, arguments, code):
    assert bench(*arguments) == code
    assert "then run the command again" in bench.output or "there are: " in bench.output


@pytest.mark.parametrize("number", sorted(exit_codes.OS_ADVICE))
def test_every_error_of_the_system_has_a_sentence_that_says_what_to_do(bench, capsys, number):
    def fail(item):
        raise OSError(number, os.strerror(number), "some/file")

    assert exit_codes.for_each(["one"], fail) == Exit.FAILURE
    sentence = " ".join(capsys.readouterr().out.split())
    assert sentence.startswith(f"{os.strerror(number)}: some/file: ")
    assert sentence.endswith(", then run the command again")


def test_an_error_that_is_a_bug_shows_its_traceback():
    def fail(item):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with pytest.raises(OSError, match="Bad file descriptor"):
        exit_codes.for_each(["one"], fail)


def test_every_combination_ends_with_a_code_that_the_help_page_lists(bench):
    """Nothing measured, and nothing there."""
    for command, scale in itertools.product(COMMANDS[1:], ("cpu", "smoke")):
        assert bench(*command, "--scale", scale) == Exit.NOTHING_RAN
