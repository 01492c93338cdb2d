"""The commands, with made-up measurements."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.main import get_command
from typer.testing import CliRunner

from symplectic_bench.commands import report_writing
from symplectic_bench.commands.app import app
from symplectic_bench.commands.exit_codes import Exit, worst
from symplectic_bench.commands.options import ReportOptions
from symplectic_bench.rows.store import write_machine, writing
from symplectic_bench.run import sweep
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.spec.status import Status
from tests.clone import PYTHONPATH, ROOT
from tests.symplectic_bench.command_line import at
from tests.symplectic_bench.sample_rows import an_environment


def test_a_run_measures_every_cell_and_writes_rows_tables_and_page(bench):
    assert bench("run", "small.toml") == Exit.DONE
    assert [len(cells) for cells in bench.asked] == [8]
    assert len(bench.rows) == 8
    tables = sorted(path.name for path in bench.folder.glob("results/small/tables/*"))
    assert tables == sorted(f"{t}.{s}" for t in ("gradients", "ordering", "overview") for s in ("csv", "md", "tex"))
    assert "wrote plots/small/work-precision.svg" in bench.output
    assert bench.settings == (5, 3, 1, Path("results/.cache"))


def test_a_second_run_measures_nothing(bench):
    bench("run", "small.toml")
    assert bench("run", "small.toml") == Exit.DONE
    assert len(bench.asked) == 1
    assert "0 of 8 cells to measure" in bench.output


def test_a_report_writes_a_page_for_browsers_if_asked(bench):
    bench("run", "small.toml")
    page = bench.folder / "results/small/report.html"
    assert bench("report", "small.toml") == Exit.DONE
    assert not page.exists()
    assert bench("report", "small.toml", "--html") == Exit.DONE
    assert "wrote results/small/report.html" in bench.output
    assert "<title>A small suite</title>" in page.read_text()


def test_a_site_has_the_runs_of_every_environment(bench, monkeypatch):
    assert bench("site", "small.toml") == Exit.NOTHING_RAN
    bench("run", "small.toml")
    at(monkeypatch, an_environment(library_sha256="9" * 64))
    bench("run", "small.toml")
    assert bench("site", "small.toml", "--to", "pages") == Exit.DONE
    assert "wrote pages/index.html" in bench.output
    assert len(list(bench.folder.glob("pages/small/*.html"))) == 3


def test_an_interrupted_run_resumes_where_it_stopped(bench):
    bench.interrupt_after = 3
    assert bench("run", "small.toml") == 130  # what a shell calls Ctrl-C
    assert len(bench.rows) == 3
    bench.interrupt_after = None
    assert bench("run", "small.toml") == Exit.DONE
    assert len(bench.asked[1]) == 5
    assert len(bench.rows) == 8


def test_another_environment_measures_everything_itself(bench, monkeypatch):
    bench("run", "small.toml")
    at(monkeypatch, an_environment(library_sha256="9" * 64))
    bench("run", "small.toml")
    assert [len(cells) for cells in bench.asked] == [8, 8]


def test_a_fresh_run_measures_everything_again_and_replaces_the_rows(bench):
    bench("run", "small.toml")
    bench.changes = {"loss": 99.0}
    assert bench("run", "small.toml", "--fresh") == Exit.DONE
    assert [row["loss"] for row in bench.rows] == [99.0] * 8


def test_a_fresh_run_of_some_cells_keeps_the_other_rows(bench):
    bench("run", "small.toml")
    bench.changes = {"loss": 99.0}
    bench("run", "small.toml", "--fresh", "--only", "gradient=aca")
    assert sorted(row["loss"] for row in bench.rows) == [1.25] * 6 + [99.0] * 2


def test_a_run_can_be_narrowed_moved_to_a_device_and_repeated(bench):
    arguments = ("--only", "gradient=aca,symplectic", "--only", "rtol=1e-6", "--device", "cuda", "--repeats", "9")
    assert bench("run", "small.toml", *arguments) == Exit.DONE
    assert [(c.gradient, c.rtol, c.device) for c in bench.asked[0]] == [
        ("aca", 1e-6, "cuda"),
        ("symplectic", 1e-6, "cuda"),
    ]
    assert bench.settings is not None and bench.settings[1] == 9


def test_narrowing_to_no_cell_is_nothing_ran(bench):
    assert bench("run", "small.toml", "--only", "rtol=1e-5") == Exit.NOTHING_RAN
    assert "no cell has it" in bench.output
    assert bench.asked == []


def test_each_scale_has_its_own_results_folder(bench):
    assert bench("run", "small.toml", "--scale", "smoke") == Exit.DONE
    assert [path.name for path in (bench.folder / "results").glob("small*")] == ["small-smoke"]
    page = (bench.folder / "results/small-smoke/README.md").read_text()
    assert "`symplectic-bench report small.toml --scale smoke`" in page


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.OOM, Status.DIVERGED, Status.SKIPPED])
def test_a_cell_that_could_not_be_measured_is_a_result(bench, status):
    bench.status = {"ours aca": status}
    assert bench("run", "small.toml") == Exit.DONE
    assert str(status) in (bench.folder / "results/small/tables/gradients.md").read_text()


def test_an_error_is_a_failure_of_ours_and_is_retried(bench):
    bench.status = {"ours aca": Status.ERROR}
    assert bench("run", "small.toml") == Exit.FAILURE
    assert "2 of 8 cells ended in an internal error" in bench.output
    bench.status = {}
    assert bench("run", "small.toml") == Exit.DONE
    assert [c.gradient for c in bench.asked[1]] == ["aca", "aca"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "smal"], "no suite 'smal'"),
        (["run", "small.toml", "--only", "colour=red"], "no such axis"),
        (["run", "small.toml", "--only", "gradient"], "AXIS=VALUE"),
        (["run", "small.toml", "--scale", "gpu"], "has no scale 'gpu'"),
        (["run", "small.toml", "--scale", "huge"], "huge"),
        (["run", "small.toml", "--frehs"], "--fresh"),
        (["run"], "Missing argument"),
        (["tables", "smal"], "no suite 'smal'"),
        (["papers"], "No such command"),
        (["paper", "table9"], "no experiment 'table9'"),
    ],
)
def test_bad_usage_exits_with_two_and_says_what_is_wrong(bench, arguments, words):
    assert bench(*arguments) == Exit.USAGE
    assert words in bench.output
    assert bench.asked == []


def test_a_mistake_in_one_suite_stops_the_run_before_it_starts(bench):
    (bench.folder / "broken.toml").write_text("name = 3")
    assert bench("run", "small.toml", "broken.toml") == Exit.USAGE
    assert bench.asked == []


@pytest.mark.parametrize("command", ["tables", "plots", "report"])
def test_without_rows_there_is_nothing_to_show(bench, command):
    assert bench(command, "small.toml") == Exit.NOTHING_RAN
    assert "no rows in results/small:" in bench.output


def test_every_file_is_reproduced_from_the_rows_alone(bench):
    bench("run", "small.toml")
    made = {
        path: path.read_bytes() for path in (bench.folder / "results/small").rglob("*.*") if path.suffix != ".jsonl"
    }
    for path in made:
        if path.suffix in (".md", ".csv", ".tex"):
            path.unlink()
    assert bench("report", "small.toml") == Exit.DONE
    assert {path: path.read_bytes() for path in made} == made
    assert len(bench.asked) == 1


def test_the_page_links_figures_by_relative_paths_only(bench):
    bench("run", "small.toml", "--results", bench.folder / "r", "--plots", bench.folder / "deep" / "p")
    page = (bench.folder / "r/small/README.md").read_text()
    assert "# A small suite" in page
    assert "](../../deep/p/small/memory-time.svg)" in page
    assert "## Every gradient, group by group" in page
    assert str(bench.folder) not in page
    assert page.count("Measured on Some CPU") == 1


def test_the_newest_environment_is_shown_unless_one_is_named(bench, monkeypatch):
    bench("run", "small.toml")
    old = an_environment().id
    (facts,) = bench.folder.glob("results/small/*/environment.json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"last_run": "2020-01-01T00:00:00+00:00"}))
    newer = an_environment(cpu="Another CPU")
    at(monkeypatch, newer)
    bench("run", "small.toml")
    table = bench.folder / "results/small/tables/overview.md"
    bench("tables", "small.toml")
    assert "Another CPU" in table.read_text()
    bench("tables", "small.toml", "--environment", old)
    assert "Some CPU" in table.read_text()
    assert bench("tables", "small.toml", "--environment", "nowhere") == Exit.USAGE


def test_a_second_writer_is_told_to_wait(bench):
    with writing(bench.folder / "results/small" / an_environment().id):
        assert bench("run", "small.toml") == Exit.FAILURE
    assert "another run is writing" in bench.output


def test_the_gravest_of_several_exit_codes_wins():
    order = [Exit.USAGE, Exit.FAILURE, Exit.BASELINE_MISSING, Exit.NOTHING_RAN, Exit.REGRESSION, Exit.DONE]
    for place, code in enumerate(order):
        assert worst([*order[:place:-1], code]) is code
    assert worst([]) == Exit.DONE


def test_every_command_has_a_help_page(bench):
    for command in get_command(app).commands:
        assert bench(command, "--help") == Exit.DONE
        assert command in bench.output


def test_help_explains_every_exit_code(bench):
    assert bench("--help") == Exit.DONE
    for code in Exit:
        assert f"{code.value} {code.meaning}" in bench.output


def test_the_documented_exit_codes_are_those_of_the_commands():
    codes = re.findall(r"^\| (\d) \|", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE)
    assert [int(code) for code in codes] == list(Exit)


@pytest.mark.parametrize(
    ("command", "record", "without"),
    [
        ("run", RunOptions, set()),
        ("paper", RunOptions, {"only", "repeats", "problem"}),
        ("tables", ReportOptions, {"plots"}),
        ("plots", ReportOptions, set()),
        ("report", ReportOptions, set()),
    ],
)
def test_commands_share_the_options_of_one_record(command, record, without):
    options = {parameter.name for parameter in get_command(app).commands[command].params}
    shared = {field.name for field in fields(record)}
    assert options & shared == shared - without
    assert "options" not in options


def test_the_main_module_imports_the_standard_library_only():
    # A measuring process imports it again, and must hold neither pandas nor matplotlib.
    program = (
        "import sys, symplectic_bench.__main__; assert not {'pandas', 'matplotlib', 'torch', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PYTHONPATH}, check=True)


def test_list_names_everything_that_a_suite_may_use():
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == Exit.DONE
    for name in ("quick: First look", "mlp: state=", "dopri5", "ours: ", "symplectic", "continuous-seminorm"):
        assert name in result.output


def test_rows_of_cells_removed_from_the_suite_are_not_shown(bench):
    bench("run", "small.toml")
    suite = bench.folder / "small.toml"
    suite.write_text(suite.read_text().replace('"aca"', '"stages"'))
    bench("run", "small.toml")
    table = (bench.folder / "results/small/tables/gradients.csv").read_text()
    assert "ours stages" in table and "ours aca" not in table


def test_a_partly_measured_suite_says_how_much_is_measured(bench):
    bench("run", "small.toml", "--only", "gradient=aca")
    page = (bench.folder / "results/small/README.md").read_text()
    assert "2 of the suite's 8 cells have been measured" in page


TARGET = """
[[target]]
point = 4
name = "calls"
cells = { contender = "ours", gradient = ["aca", "symplectic"] }
measure = "total_s"
over = "torchdiffeq backprop"
at_most = 1.5
"""


class TestTargets:
    @pytest.fixture
    def with_target(self, bench):
        suite = bench.folder / "small.toml"
        suite.write_text(suite.read_text() + TARGET)
        return bench

    def test_a_run_ends_with_every_target_and_its_measured_value(self, with_target):
        assert with_target("run", "small.toml") == Exit.DONE  # a target that is missed fails nothing
        assert "not met 4. calls: at most 1.5; worst 1.38, met in 4 of 4" not in with_target.output
        assert "met 4. calls: at most 1.5; worst 1.38, met in 4 of 4" in with_target.output
        tables = with_target.folder / "results/small/tables"
        assert {"targets.md", "targets.csv", "targets.tex", "reached.md"} <= {path.name for path in tables.iterdir()}
        page = (with_target.folder / "results/small/README.md").read_text()
        assert page.index("## Targets at a glance") < page.index("## All gradients at a glance")

    def test_cells_that_miss_a_target_are_named(self, with_target):
        suite = with_target.folder / "small.toml"
        suite.write_text(suite.read_text().replace("at_most = 1.5", "at_most = 1.2"))
        assert with_target("run", "small.toml") == Exit.DONE
        assert "not met 4. calls: at most 1.2; worst 1.38, met in 2 of 4" in with_target.output
        assert "1.38: mlp batch 128, dopri5 rtol 0.001 atol 1e-05, float64: ours symplectic over" in with_target.output

    @pytest.mark.parametrize("command", ["tables", "report"])
    def test_targets_are_evaluated_from_the_rows_alone(self, with_target, command):
        with_target("run", "small.toml")
        assert with_target(command, "small.toml") == Exit.DONE
        assert "met 4. calls" in with_target.output

    def test_unmeasured_cells_leave_a_target_open(self, with_target):
        with_target("run", "small.toml", "--only", "rtol=1e-3")
        assert "not measured 4. calls: at most 1.5; worst 1.38, met in 2 of 4" in with_target.output
        assert "not measured (2): it has no row yet" in with_target.output

    def test_a_suite_without_targets_shows_none_and_does_not_import_torch(self, bench, monkeypatch):
        bench("run", "small.toml")
        monkeypatch.setattr(report_writing, "load_vocabulary", lambda: pytest.fail("needs torch"))
        assert bench("report", "small.toml") == Exit.DONE
        assert "met" not in bench.output.split()


def test_rows_of_several_machines_are_marked_and_compared_only_on_request(bench):
    """A cluster leaves such rows: stored under the command's environment, each with its worker's."""
    bench("run", "small.toml")
    folder = next(bench.folder.glob("results/small/*/rows.jsonl")).parent
    other = an_environment(cpu="Another CPU")
    write_machine(folder, other)
    rows = [row | ({"environment": other.id} if row["contender"] == "ours" else {}) for row in bench.rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = bench.folder / "results/small/tables/gradients.csv"

    def ratios():
        lines = list(csv.DictReader(table.read_text().splitlines()))
        return [line["time_over_peer"] for line in lines if line["contender"] == "ours"]

    assert bench("tables", "small.toml") == Exit.DONE
    text = table.with_suffix(".md").read_text()
    assert "Some CPU" in text and "Another CPU" in text and "No ratio combines two machines" in text
    assert set(ratios()) == {""}
    assert bench("tables", "small.toml", "--mix-machines", "--parquet") == Exit.DONE
    assert "" not in ratios() and "may combine two of these 2 machines" in table.with_suffix(".md").read_text()
    assert parquet.read_table(bench.folder / "results/small/rows.parquet").num_rows == len(rows)


def test_contradictory_executor_options_are_bad_usage(bench):
    assert bench("run", "small.toml", "--scheduler", "tcp://a:1", "--cluster", "slurm") == Exit.USAGE
    assert "one of the two" in bench.output
    assert bench("run", "small.toml", "--cluster", "slrum") == Exit.USAGE


def test_unreadable_rows_are_replaced_by_a_fresh_run(bench):
    bench("run", "small.toml")
    (file,) = bench.folder.glob("results/small/*/rows.jsonl")
    file.write_text('{"cell_id": 3}\n' + file.read_text())
    assert bench("run", "small.toml") == Exit.FAILURE
    assert "rows.jsonl, line 1: not a row of measurements" in bench.output
    assert bench("run", "small.toml", "--fresh") == Exit.DONE
    assert len(bench.rows) == 8


def test_a_full_disk_is_reported_wherever_it_is_noticed(bench, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sweep, "write_cells", full)
    assert bench("run", "small.toml") == Exit.FAILURE
    assert "No space left on device: make room" in bench.output
