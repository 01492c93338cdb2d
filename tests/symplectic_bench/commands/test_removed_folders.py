"""Folders that somebody removes while a run is writing to them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from symplectic_bench.commands.exit_codes import Exit
from tests.clone import PYTHONPATH
from tests.symplectic_bench.sample_rows import an_environment


@pytest.mark.parametrize("removed", ["results", "results/small", "plots", "."])
@pytest.mark.parametrize("before", [0, 3, 7])
def test_a_run_ends_with_all_rows_tables_and_page(bench, removed, before):
    def disturb(number):
        if number == before:
            for folder in bench.folder.iterdir() if removed == "." else [bench.folder / removed]:
                shutil.rmtree(folder, ignore_errors=True)

    bench.disturb = disturb
    assert bench("run", "small.toml") == Exit.DONE
    assert len(bench.rows) == 8
    assert ("was removed or changed during the run" in bench.output) == (removed != "plots")
    assert (bench.folder / "results/small/README.md").exists()
    assert len(list(bench.folder.glob("results/small/tables/*"))) == 9
    facts = json.loads(next(bench.folder.glob("results/small/*/environment.json")).read_text())
    assert facts["id"] == an_environment().id
    assert bench("run", "small.toml") == Exit.DONE and "0 of 8 cells" in bench.output


def test_a_fresh_run_ends_with_all_rows(bench):
    bench("run", "small.toml")
    bench.disturb = lambda number: shutil.rmtree(bench.folder / "results") if number == 2 else None
    bench.changes = {"loss": 99.0}
    assert bench("run", "small.toml", "--fresh") == Exit.DONE
    assert [row["loss"] for row in bench.rows] == [99.0] * 8


def test_an_earlier_copy_of_the_rows_put_back_during_a_run_loses_none(bench):
    bench("run", "small.toml", "--only", "gradient=aca")
    (file,) = bench.folder.glob("results/small/*/rows.jsonl")
    earlier = file.read_text()
    bench.disturb = lambda number: file.write_text(earlier) if number == 2 else None
    assert bench("run", "small.toml") == Exit.DONE
    assert len(bench.rows) == 8 and "2 rows are written again" in bench.output


def test_a_file_in_place_of_the_folder_ends_the_run_with_the_place_of_the_rows(bench):
    def disturb(number):
        if number == 3:
            shutil.rmtree(bench.folder / "results")
            (bench.folder / "results").write_text("")

    bench.disturb = disturb
    assert bench("run", "small.toml") == Exit.FAILURE
    assert "its 3 rows are in" in bench.output and "put them back" in bench.output


def test_a_removed_current_folder_is_a_sentence(tmp_path):
    (tmp_path / "gone").mkdir()
    program = "import os, shutil; shutil.rmtree(os.getcwd()); from symplectic_bench.__main__ import main; main()"
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "gone", env=env, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr == "the current folder has been removed: change to one that exists\n"
