"""Standard output and error that nobody reads any more: no traceback, a word where one can be said, the exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clone import PYTHONPATH
from tests.symplectic_bench.commands.test_clone import SUITE

ENVIRONMENT = {**os.environ, "PYTHONPATH": PYTHONPATH}

PROGRAM = """
import sys
from symplectic_bench.commands.standard_streams import lasting_streams
with lasting_streams(failure=1):
    for number in range(300):
        print("line", number, flush=True)
    print("a word of warning", file=sys.stderr)
    raise SystemExit({code})
"""


def closed_pipe():
    """Return the end of a pipe to which nothing can be written, since its reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


def ended(command, closed=(), **files):
    """Run a command with these files as stdout and stderr, or with descriptors closed; return code and texts."""

    def close():
        for descriptor in closed:
            os.close(descriptor)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | files
    done = subprocess.run(command, env=ENVIRONMENT, preexec_fn=close, text=True, timeout=300, **pipes)
    for file in files.values():
        os.close(file)
    return done.returncode, done.stdout or "", done.stderr or ""


def program(code, **streams):
    return ended([sys.executable, "-c", PROGRAM.format(code=code)], **streams)


GONE = "cannot be written to (Broken pipe): the command goes on without it\n"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5])
def test_whatever_happened_is_said_on_the_other_stream_and_the_code_stays(code):
    ended_with, _, err = program(code, stdout=closed_pipe())
    assert ended_with == code
    assert err.startswith(f"standard output {GONE}a word of warning\n")
    assert err.endswith("line 298\nline 299\n") == (code != 0)  # what explains the code
    assert len(err) < 2500 and "line 50\n" not in err
    assert all(line.startswith(("line ", "standard", "a word")) for line in err.splitlines())


def test_a_closed_standard_error_is_said_on_standard_output():
    code, out, _ = program(3, stderr=closed_pipe())
    assert code == 3 and out.endswith(f"line 299\nstandard error {GONE}a word of warning\n")


@pytest.mark.parametrize("code", [0, 3])
def test_with_both_closed_the_code_is_all_that_is_left(code):
    assert program(code, stdout=closed_pipe(), stderr=closed_pipe()) == (code, "", "")


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("code", [0, 4])
def test_streams_may_be_closed_from_the_start(closed, code):
    ended_with, out, err = program(code, closed=closed)
    assert ended_with == code
    if closed == (1,):
        assert err.startswith("standard output cannot be written to (Bad file descriptor)") and out == ""
    if closed == (2,):
        assert "standard error cannot be written to (Bad file descriptor)" in out and err == ""


def test_a_file_opened_later_is_never_taken_for_a_closed_stream(tmp_path):
    """Rows would be mixed with what C code prints."""
    text = f"""
import os
from symplectic_bench.commands.standard_streams import lasting_streams
with lasting_streams(failure=1):
    with open({str(tmp_path / "rows")!r}, "w") as file:
        for descriptor in (1, 2):
            os.write(descriptor, b"from C")
    raise SystemExit(0)
"""
    assert ended([sys.executable, "-c", text], closed=(0, 1, 2))[0] == 0
    assert (tmp_path / "rows").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is full")
@pytest.mark.parametrize(("code", "expected"), [(0, 1), (3, 3)])
def test_output_lost_to_a_full_disk_is_a_failure(code, expected):
    ended_with, _, err = program(code, stdout=full_disk())
    assert ended_with == expected
    assert err.startswith("standard output cannot be written to (No space left on device)")
    assert err.endswith("line 299\n")


def test_a_traceback_of_ours_is_still_shown():
    text = PROGRAM.replace("raise SystemExit({code})", "1 / 0")
    code, _, err = ended([sys.executable, "-c", text], stdout=closed_pipe())
    assert code == 1 and "ZeroDivisionError" in err


def test_a_name_that_the_encoding_lacks_is_escaped():
    text = """
from symplectic_bench.commands.standard_streams import lasting_streams
with lasting_streams(failure=1):
    print("gr\\u00f6\\u00dfe \\udcff")
    raise SystemExit(0)
"""
    command = ["env", "PYTHONIOENCODING=ascii", sys.executable, "-c", text]
    assert ended(command) == (0, "gr\\xf6\\xdfe \\udcff\n", "")


def test_two_threads_that_lose_both_streams_do_not_wait_for_each_other():
    text = """
import sys, threading
from symplectic_bench.commands.standard_streams import lasting_streams
with lasting_streams(failure=1):
    both = threading.Barrier(2)
    def write(stream):
        both.wait()
        for _ in range(1000):
            print("x" * 100, file=stream, flush=True)
    other = threading.Thread(target=write, args=(sys.stderr,))
    other.start()
    write(sys.stdout)
    other.join()
    raise SystemExit(0)
"""
    assert ended([sys.executable, "-c", text], stdout=closed_pipe(), stderr=closed_pipe())[0] == 0


def command_line(*arguments):
    return [sys.executable, "-m", "symplectic_bench", *map(str, arguments)]


def test_list_ends_with_a_word_if_its_reader_leaves():
    code, _, err = ended(command_line("list"), stdout=closed_pipe())
    assert code == 0 and err.startswith(f"standard output {GONE}") and "Traceback" not in err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_bad_usage_is_said_wherever_it_can_be(stream):
    for arguments, words in ((("run", "nosuch"), "no suite 'nosuch'"), (("run", "--frehs"), "No such option")):
        code, out, err = ended(command_line(*arguments), **{stream: closed_pipe()})
        assert code == 2 and words in out + err and "Traceback" not in out + err


def test_a_run_whose_reader_leaves_saves_every_row(tmp_path):
    (tmp_path / "tiny.toml").write_text(SUITE.replace('["symplectic"]', '["symplectic", "aca"]').replace("= 1", "= 2"))
    arguments = ("run", tmp_path / "tiny.toml", "--results", tmp_path / "results", "--plots", tmp_path / "plots")
    code, _, err = ended(command_line(*arguments), stdout=closed_pipe())
    assert code == 0 and err.count("standard output cannot") == 1 and "Traceback" not in err
    (rows,) = tmp_path.glob("results/tiny/*/rows.jsonl")
    assert [json.loads(line)["status"] for line in rows.read_text().splitlines()] == ["ok", "ok"]
    assert (tmp_path / "results" / "tiny" / "README.md").exists()
