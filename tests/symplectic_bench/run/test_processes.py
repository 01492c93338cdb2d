"""All the ways in which a process can end."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from symplectic_bench.run.processes import Limits, conversation, run
from symplectic_bench.spec.failure import LONGEST_REASON, Diverged, diagnose, diagnose_exit, publishable
from symplectic_bench.spec.status import Status
from tests.clone import PYTHONPATH

# What the children call. They import this module to find it.


def double(x):
    return {"doubled": 2 * x}


def count_then_fail(n):
    yield from range(n)
    raise ValueError("in /home/somebody/secret/file.py: wrong\nand a second line")


def send_then_sleep(seconds):
    yield {"pid": os.getpid()}
    time.sleep(seconds)


def send_now_and_then(seconds):
    for value in range(2):
        time.sleep(seconds)
        yield value


def start_a_child_and_sleep():
    child = subprocess.Popen(["sleep", "60"])
    yield child.pid
    time.sleep(60)


def kill_oneself(with_signal):
    yield "about to"
    os.kill(os.getpid(), with_signal)


def exit_early():
    sys.exit(3)


def ask_for_too_much():
    return torch.empty(10**15, dtype=torch.float64).sum().item()


def give_up():
    raise Diverged("underflow in dt 0.0")


def what_it_finds():
    heavy = [name for name in ("pandas", "matplotlib", "sklearn", "pytest") if name in sys.modules]
    return {
        "threads": torch.get_num_threads(),
        "seed": torch.initial_seed(),
        "heavy": [name for name in heavy if name != "pytest"],
        "main": getattr(sys.modules["__main__"], "__file__", None),
    }


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # A zombie has ended.
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


LIMITS = Limits(timeout_s=30)
SHORT = Limits(timeout_s=2)  # long enough to start on a busy machine


def test_the_return_value_of_a_function_is_received():
    outcome = run(double, (21,), LIMITS)
    assert outcome.ok and outcome.values == [{"doubled": 42}]


@pytest.mark.parametrize("limit_s", [1e6, 1e10, 1e308])
def test_a_time_limit_may_be_longer_than_the_system_can_wait(limit_s):
    assert run(double, (21,), Limits(limit_s)).values == [{"doubled": 42}]


def test_a_running_server_forks_quickly():
    times = []
    for _ in range(4):
        start = time.monotonic()
        run(double, (1,), LIMITS)
        times.append(time.monotonic() - start)
    assert min(times) < 1.0  # importing torch alone takes longer


def test_an_exception_keeps_earlier_values_and_shows_no_path():
    outcome = run(count_then_fail, (3,), LIMITS)
    assert outcome.values == [0, 1, 2]
    assert (outcome.status, outcome.reason) == (Status.ERROR, "ValueError: in file.py: wrong")


def test_a_process_that_takes_too_long_is_killed():
    start = time.monotonic()
    outcome = run(send_then_sleep, (60,), SHORT)
    assert outcome.status is Status.TIMEOUT and outcome.reason == "no result for 2 s"
    assert time.monotonic() - start < 10
    assert not is_running(outcome.values[0]["pid"])


def test_the_time_limit_applies_to_each_value():
    start = time.monotonic()
    outcome = run(send_now_and_then, (1.1,), SHORT)
    assert outcome.ok and outcome.values == [0, 1]
    assert time.monotonic() - start > SHORT.timeout_s


@pytest.mark.skipif(sys.platform == "win32", reason="starts sleep")
def test_children_of_a_killed_process_die_too():
    outcome = run(start_a_child_and_sleep, (), SHORT)
    assert outcome.status is Status.TIMEOUT
    deadline = time.monotonic() + 5
    while is_running(outcome.values[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(outcome.values[0])


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT")])
def test_a_crash_is_a_status(number, name):
    outcome = run(kill_oneself, (number,), LIMITS)
    assert outcome.status is Status.ERROR and name in str(outcome.reason) and outcome.values == ["about to"]


def test_an_exit_without_a_result_is_an_error():
    outcome = run(exit_early, (), LIMITS)
    assert (outcome.status, outcome.reason) == (Status.ERROR, "the process ended with exit code 3 and no result")


def test_an_allocation_that_fails_is_oom():
    assert run(ask_for_too_much, (), LIMITS).status is Status.OOM


def test_a_solver_that_gives_up_has_diverged():
    outcome = run(give_up, (), LIMITS)
    assert (outcome.status, outcome.reason) == (Status.DIVERGED, "underflow in dt 0.0")


def test_a_process_is_new_and_has_the_given_settings():
    found = run(what_it_finds, (), Limits(timeout_s=30, threads=2, seed=5)).values[0]
    assert found == {"threads": 2, "seed": 5, "heavy": [], "main": None}


def test_a_process_that_must_not_be_forked_is_spawned():
    outcome = run(what_it_finds, (), Limits(timeout_s=60, spawned=True, seed=7))
    assert outcome.ok and outcome.values[0]["seed"] == 7 and outcome.values[0]["main"] is None


class TestDiagnosis:
    @pytest.mark.parametrize(
        ("killed_for_memory", "status", "words"),
        [
            (True, Status.OOM, "was killed for lack of memory"),
            (None, Status.OOM, "presumably"),
            (False, Status.ERROR, "signal 9 (SIGKILL)"),
        ],
    )
    def test_a_kill_is_blamed_on_memory_unless_the_kernel_denies_it(self, killed_for_memory, status, words):
        found, reason = diagnose_exit(-signal.SIGKILL, killed_for_memory)
        assert found is status and words in reason

    @pytest.mark.parametrize("error", [MemoryError("no"), torch.OutOfMemoryError("CUDA out of memory")])
    def test_memory_errors_are_oom(self, error):
        assert diagnose(error)[0] is Status.OOM

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("at /a/b_c/d-e/f.py:3", "at f.py:3"),
            ("C:\\Users\\somebody\\x.txt is missing", "x.txt is missing"),
            ("~/project/file", "file"),
            ("1/2 and y/h stay", "1/2 and y/h stay"),
            ("rtol=1e-3 (a/b)", "rtol=1e-3 (a/b)"),
            ("first\nsecond", "first"),
        ],
    )
    def test_folders_are_cut_and_fractions_are_not(self, text, kept):
        assert publishable(text) == kept

    def test_a_long_text_is_cut(self):
        assert len(publishable("x" * 1000)) == LONGEST_REASON


def test_a_module_that_the_server_fails_to_import_is_reported_once(tmp_path):
    (tmp_path / "broken.py").write_text("raise ImportError('no luck')")
    program = (
        "from symplectic_bench.run import processes\n"
        "processes.PRELOAD = ('json', 'broken', 'never_installed')\n"
        "for _ in range(2): print(processes.run(abs, (-1,), processes.Limits(60.0)).values)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([PYTHONPATH, str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[1]", "[1]"]
    assert done.stderr.count("could not import") == 1
    assert "could not import broken (ImportError: no luck): every cell imports it itself" in done.stderr


def doubling(questions, factor):
    while True:
        question = questions.recv()
        if question == "die":
            os._exit(7)
        if question == "sleep":
            time.sleep(60)
        yield factor * question


class TestConversation:
    @pytest.mark.parametrize("spawned", [False, True])
    def test_a_process_answers_one_question_after_another(self, spawned):
        with conversation(doubling, (2,), Limits(60, spawned=spawned)) as talk:
            assert [talk.ask(question) for question in (1, 2, 21)] == [2, 4, 42] and talk.outcome.ok

    def test_two_processes_work_at_their_questions_at_once(self):
        with conversation(doubling, (2,), LIMITS) as one, conversation(doubling, (3,), LIMITS) as other:
            one.put(1)
            other.put(1)
            assert (other.take(), one.take()) == (3, 2)

    def test_a_process_that_dies_gives_its_reason_and_no_more_answers(self):
        with conversation(doubling, (2,), LIMITS) as talk:
            assert talk.ask(1) == 2
            assert talk.ask("die") is None and talk.ask(1) is None
        assert (talk.outcome.status, talk.outcome.values) == (Status.ERROR, [2])
        assert talk.outcome.reason == "the process ended with exit code 7 and no result"

    def test_an_answer_that_does_not_come_is_a_timeout(self):
        with conversation(doubling, (2,), SHORT) as talk:
            assert talk.ask("sleep") is None and talk.outcome.reason == "no result for 2 s"
            process = talk.process
        assert not process.is_alive()

    def test_an_exception_is_the_outcome(self):
        with conversation(doubling, (2,), LIMITS) as talk:
            assert talk.ask(None) is None
        assert talk.outcome.reason is not None and talk.outcome.reason.startswith("TypeError")
