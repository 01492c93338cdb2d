import errno
import getpass
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from symplectic_bench.rows.record import UnreadableRow
from symplectic_bench.rows.store import StoreError, anonymous, environment_ids, read_rows, write_environment, writing
from symplectic_bench.spec.status import Status
from tests.clone import PYTHONPATH
from tests.symplectic_bench.sample_rows import a_cell, a_row, an_environment


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "small" / "0123456789ab"


def write(folder, *rows, **options):
    with writing(folder, **options) as writer:
        for row in rows:
            writer.append(row)


def gradients(folder):
    return [row.gradient for row in read_rows(folder / "rows.jsonl").rows]


ACA, STAGES = a_row(a_cell(gradient="aca")), a_row(a_cell(gradient="stages"))


def test_rows_are_read_as_they_were_written(folder):
    write(folder, ACA, STAGES)
    found = read_rows(folder / "rows.jsonl")
    assert found.rows == [ACA, STAGES]
    assert found.warnings == []


def test_no_file_is_no_rows(folder):
    assert read_rows(folder / "rows.jsonl").rows == []


def test_a_row_is_on_disk_before_append_returns(folder):
    with writing(folder) as writer:
        writer.append(ACA)
        assert gradients(folder) == ["aca"]


def test_a_later_run_appends(folder):
    write(folder, ACA)
    write(folder, STAGES)
    assert gradients(folder) == ["aca", "stages"]


def tear(path):
    """Cut the last line in half, as a power cut would."""
    text = path.read_text()
    path.write_text(text[: len(text) - len(text.splitlines()[-1]) // 2])


def test_a_torn_last_line_is_tolerated(folder):
    write(folder, ACA, STAGES)
    tear(folder / "rows.jsonl")
    found = read_rows(folder / "rows.jsonl")
    assert [row.gradient for row in found.rows] == ["aca"]
    assert "line 2 is truncated" in found.warnings[0]


def test_a_row_after_a_torn_line_is_not_lost(folder):
    write(folder, ACA, STAGES)
    tear(folder / "rows.jsonl")
    write(folder, STAGES)
    assert gradients(folder) == ["aca", "stages"]


def test_a_row_that_lost_only_its_newline_counts(folder):
    write(folder, ACA)
    path = folder / "rows.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    write(folder, STAGES)
    assert gradients(folder) == ["aca", "stages"]


def test_of_two_finished_rows_the_first_counts_with_a_warning(folder):
    write(folder, ACA)
    with (folder / "rows.jsonl").open("a") as file:  # by a version that did not look
        file.write(json.dumps(replace(ACA, total_s=9.0).to_json()) + "\n")
    found = read_rows(folder / "rows.jsonl")
    assert [row.total_s for row in found.rows] == [ACA.total_s]
    assert "already finished; the first row counts" in found.warnings[0]


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.ERROR])
def test_every_result_is_final(folder, status):
    write(folder, replace(ACA, status=status))
    assert read_rows(folder / "rows.jsonl").to_do([a_cell(gradient="aca"), a_cell()]) == [a_cell()]


def test_an_error_is_retried_up_to_three_attempts(folder):
    cell = a_cell(gradient="aca")
    for attempt in (1, 2, 3):
        assert read_rows(folder / "rows.jsonl").to_do([cell]) == [cell]
        write(folder, replace(ACA, status=Status.ERROR, reason=f"failure {attempt}"))
    found = read_rows(folder / "rows.jsonl")
    assert found.to_do([cell]) == []
    assert [(row.attempt, row.reason) for row in found.rows] == [(3, "failure 3")]


def test_a_result_after_an_error_counts(folder):
    write(folder, replace(ACA, status=Status.ERROR), STAGES, ACA)
    found = read_rows(folder / "rows.jsonl")
    assert [(row.gradient, row.status, row.attempt) for row in found.rows] == [("aca", "ok", 2), ("stages", "ok", 1)]
    assert found.warnings == []


def test_two_runs_cannot_write_to_one_folder(folder):
    with writing(folder):
        with pytest.raises(StoreError, match=r"another run is writing to .*small/0123456789ab;"), writing(folder):
            pass
        other_process = (
            "import sys; from pathlib import Path; from symplectic_bench.rows.store import writing\n"
            "with writing(Path(sys.argv[1])): pass"
        )
        command = [sys.executable, "-c", other_process, str(folder)]
        result = subprocess.run(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True)
        assert b"StoreError" in result.stderr
    write(folder, ACA)  # and the lock is gone


def test_a_fresh_run_replaces_the_old_rows_at_its_end(folder):
    write(folder, ACA)
    with writing(folder, fresh=True) as writer:
        writer.append(STAGES)
        assert gradients(folder) == ["aca"]
    assert gradients(folder) == ["stages"]
    assert not (folder / "rows.fresh.jsonl").exists()


def test_a_fresh_run_that_fails_leaves_the_old_rows(folder):
    write(folder, ACA)
    with pytest.raises(KeyboardInterrupt), writing(folder, fresh=True) as writer:
        writer.append(STAGES)
        raise KeyboardInterrupt
    assert gradients(folder) == ["aca"]
    write(folder, fresh=True)  # and what it left behind is not taken for rows of the next
    assert gradients(folder) == []


def test_a_fresh_run_of_some_cells_keeps_the_rest(folder):
    write(folder, ACA, STAGES)
    write(folder, replace(ACA, total_s=9.0), fresh=True, keep=[STAGES.cell_id])
    assert gradients(folder) == ["stages", "aca"]


def test_rows_of_a_newer_version_are_not_skipped_silently(folder):
    write(folder, ACA)
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(ACA.to_json() | {"colour": "red"}) + "\n")
    with pytest.raises(UnreadableRow, match="colour"):
        read_rows(folder / "rows.jsonl")


def test_nothing_written_names_a_host_a_user_or_a_folder(folder, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "alices-laptop")
    reason = f'OSError at "{Path.home()}/secret/x.py", line 3: {folder} on {socket.gethostname()} (/opt/y/z.so:7)'
    write(folder, replace(ACA, status=Status.ERROR, reason=reason))
    write_environment(folder, an_environment(), "cpu")
    written = (folder / "rows.jsonl").read_text() + (folder / "environment.json").read_text()
    private = [str(folder), str(Path.home()), "/opt/", "secret", socket.gethostname(), f"/{getpass.getuser()}/"]
    assert [word for word in private if word in written] == []
    assert "x.py" in written


@pytest.mark.parametrize("text", ["a/b of 1/2", "https://example.org/a/b", "rtol 1e-3 / 7", "N/A", "y' = f / g"])
def test_text_that_is_no_path_is_unchanged(text):
    assert anonymous(text) == text


def test_bare_nan_is_never_written(folder):
    write(folder, replace(ACA, error_true=float("nan")))

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((folder / "rows.jsonl").read_text(), parse_constant=refuse)


def test_environments_are_listed_by_their_last_run(tmp_path):
    for id_, last_run in (("b", "2024-02-01T00:00:00+00:00"), ("a", "2024-03-01T00:00:00+00:00"), ("c", "2024")):
        write(tmp_path / id_)
        (tmp_path / id_ / "environment.json").write_text(json.dumps({"last_run": last_run}))
    (tmp_path / "c" / "rows.jsonl").unlink()  # began and measured nothing
    assert environment_ids(tmp_path) == ["a", "b"]


class TestDelivery:
    def test_a_row_that_is_delivered_twice_is_written_once(self, folder):
        with writing(folder) as writer:
            assert writer.append(ACA) is not None
            assert writer.append(ACA) is None
        assert len((folder / "rows.jsonl").read_text().splitlines()) == 1
        with writing(folder) as writer:  # nor by a later run
            assert writer.append(replace(ACA, total_s=9.0)) is None
        assert read_rows(folder / "rows.jsonl").rows == [ACA]

    def test_every_error_is_written(self, folder):
        failed = replace(ACA, status=Status.ERROR, reason="boom")
        write(folder, failed, failed)
        assert read_rows(folder / "rows.jsonl").attempts == {ACA.cell_id: 2}

    def test_a_cell_that_was_given_up_counts_as_its_last_attempt(self, folder):
        write(folder, replace(ACA, status=Status.ERROR, reason="it killed its workers", attempt=3))
        known = read_rows(folder / "rows.jsonl")
        assert known.attempts == {ACA.cell_id: 3} and known.to_do([ACA.cell]) == []

    def test_a_full_disk_is_reported_and_leaves_whole_lines(self, folder, monkeypatch):
        real = os.fsync

        def full(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with writing(folder) as writer:
            writer.append(ACA)
            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match=r"No space left on device.*make room"):
                writer.append(STAGES)
            monkeypatch.setattr(os, "fsync", real)
            assert read_rows(folder / "rows.jsonl").rows == [ACA]
            writer.append(STAGES)
        assert gradients(folder) == ["aca", "stages"]

    def test_a_second_writer_is_told_who_holds_the_lock(self, folder):
        with writing(folder), pytest.raises(StoreError, match=rf"\(process {os.getpid()} on .* since 20"):
            write(folder, ACA)
