"""watch_memory on the CPU: what counts, and that nothing reaches stderr but what the user writes there."""

import os
import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest
import torch

from symplectic_adjoint import watch_memory
from symplectic_adjoint._torch_internals import ProfilerEvent
from symplectic_adjoint.memory import allocator, profiler_turn
from symplectic_adjoint.memory.allocator import Traffic

FLOATS = 1000
BYTES = 4 * FLOATS  # float32; the allocator reports sizes as asked for


def floats(n=FLOATS):
    return torch.empty(n, dtype=torch.float32)


# ---- what counts ----


def test_the_release_of_an_older_tensor_is_not_counted():
    older = [floats()]
    (traffic,) = watch_memory("cpu", lambda: (older.clear(), floats()))
    # Not the number of events: garbage of other tests may be collected meanwhile.
    assert (traffic.peak_bytes, traffic.left_bytes) == (BYTES, 0)


def test_it_makes_no_difference_whether_an_older_tensor_was_watched_when_it_was_made():
    held = []
    (made,) = watch_memory("cpu", lambda: held.append(floats()))
    assert made.left_bytes == BYTES
    (traffic,) = watch_memory("cpu", lambda: (held.clear(), floats()))
    assert (traffic.peak_bytes, traffic.left_bytes) == (BYTES, 0)


def test_a_release_in_a_thread_without_profile_is_noticed_when_its_memory_is_used_again(monkeypatch):
    def move(ns, address, nbytes):
        return ProfilerEvent("[memory]", ns, ns, address, nbytes)

    recorded = [
        move(1, 64, 400),
        move(2, 128, 40),
        move(3, 64, 300),  # the 400 bytes there were released unseen
        ProfilerEvent(f"{allocator._MARK}0", 0, 4, 0, 0),
        move(5, 64, -300),
        ProfilerEvent(f"{allocator._MARK}1", 4, 6, 0, 0),
    ]
    monkeypatch.setattr(allocator, "allocation_events", lambda: nullcontext(recorded))
    expected = [Traffic(440, 340, events=3), Traffic(340, 40, events=1)]
    assert watch_memory("cpu", lambda: None, lambda: None) == expected


def test_a_profile_in_progress_is_refused_and_survives():
    with torch.profiler.profile() as profile:
        with pytest.raises(RuntimeError, match="already running in this thread: stop it"):
            watch_memory("cpu", floats)
        floats().add(1.0)
    assert any(event.key == "aten::add" for event in profile.key_averages())
    (traffic,) = watch_memory("cpu", floats)
    assert (traffic.peak_bytes, traffic.left_bytes) == (BYTES, 0)


def test_a_phase_cannot_be_watched_from_within():
    with pytest.raises(RuntimeError, match="or of the other watch_memory"):
        watch_memory("cpu", lambda: watch_memory("cpu", floats))
    (traffic,) = watch_memory("cpu", floats)
    assert (traffic.peak_bytes, traffic.left_bytes) == (BYTES, 0)


def test_a_thread_that_a_phase_waits_for_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(profiler_turn, "PATIENCE_S", 0.1)
    errors = []

    def watch():
        try:
            watch_memory("cpu", floats)
        except RuntimeError as error:
            errors.append(str(error))

    def phase():
        other = threading.Thread(target=watch)
        other.start()
        other.join()

    watch_memory("cpu", phase)
    assert len(errors) == 1 and "another thread has used torch's profiler" in errors[0]


# ---- stderr ----

OLDER = "older = [torch.ones(10) for _ in range(2500)]"  # torch would log the first release and each thousandth
WATCH = "(traffic,) = watch_memory('cpu', lambda: (older.clear(), torch.empty(10)))"
COUNTED = "assert (traffic.peak_bytes, traffic.left_bytes) == (40, 0), traffic"
THREAD = """
import threading
def watch():
    {watch}
    {counted}
    done.append(1)
done = []
threads = [threading.Thread(target=watch) for _ in range({threads})]
for t in threads: t.start()
for t in threads: t.join()
assert len(done) == {threads}
"""
FORK = """
import os
{before}
def child():
    {watch}
    {counted}
pid = os.fork()
if pid == 0:
    try: child(); os._exit(0)
    except BaseException as error: os.write(2, repr(error).encode()); os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
{watch}
{counted}
"""
FORK_IN_A_PHASE = """
import os
def phase():
    pid = os.fork()
    if pid == 0:
        older.clear()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
watch_memory('cpu', phase)
"""
FORK_BESIDE_A_PHASE = """
import os, threading
started, ended = threading.Event(), threading.Event()
watched = threading.Thread(target=lambda: watch_memory('cpu', lambda: (started.set(), ended.wait())))
watched.start()
started.wait()
pid = os.fork()
if pid == 0:
    {watch}
    {counted}
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
ended.set()
watched.join()
"""
PARTS = {"watch": WATCH, "counted": COUNTED}
PROGRAMS = {
    "in the main thread": f"{WATCH}\n{COUNTED}",
    "twice": f"{WATCH}\n{COUNTED}\n{OLDER}\n{WATCH}\n{COUNTED}",
    "in a thread": THREAD.format(**PARTS, threads=1),
    "in four threads": THREAD.format(**PARTS, threads=4),
    "after fork": FORK.format(**PARTS, before=""),
    "after fork of a process that has watched": FORK.format(**PARTS, before="watch_memory('cpu', torch.Tensor)"),
    "in a process forked in a phase": FORK_IN_A_PHASE,
    "in a process forked beside a phase": FORK_BESIDE_A_PHASE.format(**PARTS),
}


def run(program, **environment):
    """Run a program in a new process, in which tensors exist when watching starts, and return what it printed."""
    code = f"import sys, torch\nfrom symplectic_adjoint import watch_memory\n{OLDER}\n{program}"
    given = {name: value for name, value in os.environ.items() if not name.endswith("LOG_LEVEL")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=given | environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_releases_of_older_tensors_write_nothing(program):
    done = run(program)
    assert done.stdout == done.stderr == ""


def test_what_the_user_writes_to_stderr_arrives_in_order_and_whole():
    program = """
import os, subprocess, threading, warnings
def say(i):
    print(f"print {i}", file=sys.stderr)
    os.write(2, f"write {i}\\n".encode())
    subprocess.run(["sh", "-c", f"echo child {i} >&2"], check=True)
    warnings.warn(f"warning {i}")
    sys.stderr.write(f"no end {i};")
    assert not sys.stderr.isatty() and os.fstat(2) == before
before = os.fstat(2)
def watch():
    say(0)
    watch_memory("cpu", lambda: (older.clear(), say(1)), lambda: say(2))
    say(3)
thread = threading.Thread(target=watch)
thread.start()
thread.join()
"""
    said = run(program).stderr
    words = [word for i in range(4) for word in (f"print {i}", f"write {i}", f"child {i}", f"warning {i}", f"end {i};")]
    places = [said.index(word) for word in words]
    assert places == sorted(places) and "Memory block" not in said and "External init" not in said


def test_the_log_is_as_before_after_watching_and_a_level_that_the_user_chose_is_kept():
    program = f"""
from torch.autograd import profiler
{WATCH}
more = [torch.ones(10) for _ in range(2500)]
with profiler.profile(profile_memory=True): more.clear()
"""
    assert "Memory block of unknown size" in run(program).stderr
    assert "Memory block of unknown size" in run(WATCH, TORCH_CPP_LOG_LEVEL="INFO").stderr
    assert run(WATCH, TORCH_CPP_LOG_LEVEL="ERROR").stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/null"])
def test_stderr_may_be_closed(closed):
    code = f"import torch\nfrom symplectic_adjoint import watch_memory\n{OLDER}\n{WATCH}\n{COUNTED}"
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], timeout=120)
    assert done.returncode == 0
