"""Where reservations lie: in a folder that no other user can write to, whatever somebody has put there before."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from symplectic_bench.run.executors import reservation
from symplectic_bench.run.executors.executor import ExecutorError
from symplectic_bench.run.executors.reservation import NAME, reserved
from tests.symplectic_bench.work import silent

NOBODY = 65534


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two places for the folder, the runtime folder and then the temporary one, and no others."""
    runtime, temporary = tmp_path / "runtime", tmp_path / "temporary"
    for place in (runtime, temporary):
        place.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    real = reservation._places
    monkeypatch.setattr(reservation, "_places", lambda: (p for p in real() if p.is_relative_to(tmp_path)))
    return runtime, temporary


def reserve():
    with reserved("cpu", 1, silent):
        pass


def used(places):
    """Return the places whose folder holds reservations."""
    return [place for place in places if (place / NAME).is_dir() and any((place / NAME).iterdir())]


def test_the_folder_is_the_users_alone_and_in_the_runtime_folder_first(places):
    reserve()
    assert used(places) == [places[0]]
    assert stat.S_IMODE((places[0] / NAME).stat().st_mode) == 0o700


@pytest.mark.parametrize("value", [None, "", "relative", "/nowhere/at/all", "/" + "x" * 300])
def test_without_a_runtime_folder_the_temporary_one_serves(places, monkeypatch, value):
    monkeypatch.chdir(places[0])
    (places[0] / "relative").mkdir()
    if value is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    reserve()
    assert used(places) == [places[1]]


def test_without_the_variable_the_runtime_folder_is_still_the_first_place(monkeypatch):
    """So that a job without a login session sees the reservations of one with a session."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    session = os.stat_result((0o40700, 0, 0, 0, os.getuid(), 0, 0, 0, 0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(reservation.os, "stat", lambda path: session)
        first = next(reservation._places())
    assert first == Path(f"/run/user/{os.getuid()}")


def linked(folder, elsewhere):
    folder.symlink_to(elsewhere)


def looping(folder, elsewhere):
    folder.symlink_to(folder)


def a_file(folder, elsewhere):
    folder.write_text("mine")


def for_the_group(folder, elsewhere):
    folder.mkdir()
    folder.chmod(0o770)


def for_all(folder, elsewhere):
    folder.mkdir()
    folder.chmod(0o1777)


def of_another_user(folder, elsewhere):
    folder.mkdir(0o700)
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder, NOBODY, NOBODY)


HOSTILE = [linked, looping, a_file, for_the_group, for_all, of_another_user]


@pytest.mark.parametrize("prepare", HOSTILE)
def test_a_folder_that_others_control_is_passed_over(places, tmp_path, prepare):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "core-0").write_text("precious")
    prepare(places[0] / NAME, elsewhere)
    reserve()
    assert used([places[1]]) == [places[1]]
    assert [(f.name, f.read_text()) for f in elsewhere.iterdir()] == [("core-0", "precious")]


@pytest.mark.parametrize("prepare", HOSTILE)
def test_without_any_safe_folder_one_sentence_says_why(places, tmp_path, prepare):
    for place in places:
        prepare(place / NAME, tmp_path)
    with pytest.raises(ExecutorError, match=rf"(?s)no folder .*{NAME}.*\): remove .* or set XDG_RUNTIME_DIR"):
        reserve()


def test_a_runtime_folder_of_another_user_is_passed_over(places, monkeypatch):
    """su and sudo may keep the variable."""
    real = os.stat
    strange = os.stat_result((0o40700, 0, 0, 0, os.getuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "stat", lambda path, **how: strange if path == str(places[0]) else real(path, **how))
    reserve()
    assert used(places) == [places[1]]


def test_a_place_that_cannot_be_written_to_is_passed_over(places, monkeypatch):
    real = os.mkdir

    def mkdir(path, mode=0o777):
        if Path(path).is_relative_to(places[0]):
            raise PermissionError(13, "Permission denied")
        real(path, mode)

    monkeypatch.setattr(reservation.os, "mkdir", mkdir)
    reserve()
    assert used(places) == [places[1]]


def cores():
    return sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no cores to reserve")
def test_a_link_in_place_of_a_reservation_is_not_followed(places, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (places[0] / NAME).mkdir(0o700)
    for core in cores():
        (places[0] / NAME / f"core-{core}").symlink_to(precious)
    with pytest.raises(ExecutorError, match=rf"{NAME}/core-\d+ cannot be opened .*: remove it"):
        reserve()
    assert precious.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no cores to reserve")
def test_what_a_reservation_file_holds_stays(places):
    (places[0] / NAME).mkdir(0o700)
    files = [places[0] / NAME / f"core-{core}" for core in cores()]
    for file in files:
        file.write_text("kept")
    reserve()
    assert [file.read_text() for file in files] == ["kept"] * len(files)
