"""How a run of the tests in a forked process ends."""

import os
import time
from pathlib import Path

import pytest

from tests.mutation.trial import run_tests


@pytest.fixture
def trial(tmp_path):
    def run(body, **limits):
        (tmp_path / "test_body.py").write_text(body)
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        return run_tests([f"--rootdir={tmp_path}", str(tmp_path)], str(tmp_path / "output"), **limits)

    return run


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("def test(): pass", "survived"),
        ("def test(): assert 1 == 2", "killed"),
        ("import nowhere", "killed"),
        ("import os\ndef test(): os.abort()", "killed"),
        ("", "killed"),  # no test at all
    ],
    ids=["passes", "fails", "cannot be imported", "crashes", "no test"],
)
def test_a_mutant_survives_only_if_every_test_passes(trial, body, outcome):
    assert trial(body).outcome == outcome


def test_an_endless_loop_ends_at_the_limit_of_processor_time(trial):
    ended = trial("def test():\n    while True: pass", limit_s=1.0)
    assert ended.outcome == "timeout"
    # The limit, and what importing and starting took before it was set.
    assert 0.5 < ended.cpu_s < 10.0


def test_what_a_run_starts_ends_with_it(trial, tmp_path):
    body = f"""
import pathlib, subprocess, sys
CHILD = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def test():
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(CHILD.pid))
"""
    assert trial(body).outcome == "survived"
    pid = int((tmp_path / "pid").read_text())
    assert _ends(pid)


def _ends(pid):
    """Whether a process that was killed is gone, or waits for a parent to notice, within ten seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.1)
    os.kill(pid, 9)
    return False


def test_the_output_of_the_tests_is_kept_apart(trial, tmp_path, capfd):
    trial("def test(): assert 'the words of a failure' == ''")
    assert "the words of a failure" in (tmp_path / "output").read_text()
    assert "the words of a failure" not in capfd.readouterr().out
