"""Rows whose file is taken away while they are written: none is lost, and it is said."""

import errno
import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from symplectic_bench.rows.store import StoreError, read_rows, writing
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row

ROWS = [a_row(a_cell(gradient=gradient)) for gradient in ("aca", "stages", "symplectic", "backprop")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "small" / "0123456789ab"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def the_folder(file):
    shutil.rmtree(file.parent)


def all_results(file):
    shutil.rmtree(file.parents[2])


def the_file(file):
    file.unlink()


def by_renaming_the_folder(file):
    file.parent.rename(file.parents[1] / "old")


def by_renaming_all_results(file):
    file.parents[2].rename(file.parents[3] / "old")


def by_emptying_the_file(file):
    file.write_text("")


def by_cutting_the_file(file):
    file.write_text(file.read_text()[:100])


def by_an_older_file(file):
    content = file.read_text().splitlines(keepends=True)[0]
    file.unlink()
    file.write_text(content)


def by_something_else(file):
    file.unlink()
    file.write_text('{"a": 1}\n')


def by_a_folder(file):
    file.unlink()
    file.mkdir()
    (file / "kept").touch()


def by_a_dead_link(file):
    file.unlink()
    file.symlink_to("nowhere.jsonl")


LOSSES = [
    the_folder,
    all_results,
    the_file,
    by_renaming_the_folder,
    by_renaming_all_results,
    by_emptying_the_file,
    by_cutting_the_file,
    by_an_older_file,
    by_something_else,
    by_a_folder,
    by_a_dead_link,
]


def lines_of(file):
    """Return the gradients of the file's whole lines."""
    return [json.loads(line)["gradient"] for line in file.read_bytes().splitlines() if line.endswith(b"}")]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("after", [1, 2, 4])
def test_every_row_is_in_the_new_file(folder, lose, after):
    said = []
    with writing(folder, on_loss=said.append) as writer:
        for number, row in enumerate(ROWS, start=1):
            writer.append(row)
            if number == after:
                lose(folder / "rows.jsonl")
    found = read_rows(folder / "rows.jsonl")
    assert sorted(found.by_cell) == sorted(row.cell_id for row in ROWS)
    assert len(lines_of(folder / "rows.jsonl")) == len(ROWS)
    if (lose, after) == (by_an_older_file, 1):
        assert said == []  # nothing was lost
    else:
        (sentence,) = said
        lost = after - 1 if lose is by_an_older_file else after
        assert sentence == (
            "small/0123456789ab/rows.jsonl was removed or changed during the run:"
            f" {lost} rows are written again, to a new file there"
        )


@pytest.mark.parametrize("lose", LOSSES)
def test_rows_of_earlier_runs_and_attempts_are_written_again_too(folder, lose):
    failed = replace(ROWS[1], status=Status.ERROR, reason="boom")
    with writing(folder) as writer:
        writer.append(ROWS[0])
        writer.append(failed)
    with writing(folder) as writer:
        writer.append(failed)
        lose(folder / "rows.jsonl")
        writer.append(ROWS[2])
    found = read_rows(folder / "rows.jsonl")
    assert found.attempts == {failed.cell_id: 2}
    assert [row.gradient for row in found.rows if row.status is Status.OK] == ["aca", "symplectic"]


@pytest.mark.parametrize("lose", [the_folder, all_results, by_renaming_the_folder])
def test_a_fresh_run_still_replaces_the_rows_at_its_end(folder, lose):
    with writing(folder) as writer:
        for row in ROWS[:2]:
            writer.append(row)
    with writing(folder, fresh=True, keep=[ROWS[0].cell_id]) as writer:
        writer.append(ROWS[2])
        lose(folder / "rows.fresh.jsonl")
        writer.append(ROWS[3])
        lose(folder / "rows.fresh.jsonl") if lose is the_folder else None
    assert [row.gradient for row in read_rows(folder / "rows.jsonl").rows] == ["aca", "symplectic", "backprop"]
    assert not (folder / "rows.fresh.jsonl").exists()


def test_an_interrupted_run_keeps_its_rows_too(folder):
    with pytest.raises(KeyboardInterrupt), writing(folder) as writer:
        writer.append(ROWS[0])
        shutil.rmtree(folder)
        raise KeyboardInterrupt
    assert lines_of(folder / "rows.jsonl") == ["aca"]


def test_what_another_run_has_put_there_stays(folder):
    with writing(folder) as writer:
        writer.append(ROWS[0])
        folder.rename(folder.with_name("old"))
        with writing(folder) as other:
            other.append(ROWS[1])
            writer.append(ROWS[2])
            other.append(ROWS[3])
        assert writer.append(ROWS[1]) is None  # it is known to be finished
    assert lines_of(folder / "rows.jsonl") == ["stages", "aca", "symplectic", "backprop"]


def test_the_new_folder_is_locked(folder):
    with writing(folder) as writer:
        writer.append(ROWS[0])
        shutil.rmtree(folder)
        writer.append(ROWS[1])
        with pytest.raises(StoreError, match="another run is writing"), writing(folder):
            pass
    with writing(folder):  # and unlocked at the end
        pass


def test_what_was_in_the_place_of_the_file_is_set_aside(folder):
    with writing(folder) as writer:
        writer.append(ROWS[0])
        by_something_else(folder / "rows.jsonl")
    (aside,) = folder.glob("rows.jsonl.*")
    assert aside.read_text() == '{"a": 1}\n'


def rows_saved(error):
    return lines_of(Path(re.search(r" in (\S+\.jsonl):", str(error.value))[1]))


def test_rows_that_cannot_be_put_back_are_saved_elsewhere(folder):
    with pytest.raises(StoreError, match="cannot be written again") as error, writing(folder) as writer:
        for row in ROWS[:3]:
            writer.append(row)
        shutil.rmtree(folder)
        folder.write_text("a file where the folder was")
        writer.append(ROWS[3])
    assert rows_saved(error) == ["aca", "stages", "symplectic"]


def test_the_row_for_which_there_is_no_room_is_saved_elsewhere(folder, monkeypatch):
    with writing(folder) as writer:
        writer.append(ROWS[0])
        with monkeypatch.context() as patched, pytest.raises(StoreError, match="No space left") as error:
            patched.setattr(os, "fsync", full)
            writer.append(ROWS[1])
    assert lines_of(folder / "rows.jsonl") == ["aca"] and rows_saved(error) == ["stages"]


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_anywhere_the_row_is_said_to_be_lost(folder, monkeypatch):
    with writing(folder) as writer, monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(tempfile, "mkstemp", full)
        with pytest.raises(StoreError, match=r"it is lost \(No space left on device\)"):
            writer.append(ROWS[0])


def test_an_untouched_file_is_not_written_again(folder):
    said = []
    with writing(folder, on_loss=said.append) as writer:
        inode = (folder / "rows.jsonl").stat().st_ino
        for row in ROWS:
            writer.append(row)
    assert said == [] and (folder / "rows.jsonl").stat().st_ino == inode
