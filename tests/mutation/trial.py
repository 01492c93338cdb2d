"""A run of pytest in a forked process, which need not import torch again."""

import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

import pytest

GIB = 2**30


@dataclass(frozen=True)
class Trial:
    """How a run of the tests ended: killed, survived or timeout; and the seconds that its processor worked."""

    outcome: str
    cpu_s: float


def run_tests(arguments: list[str], output: str, limit_s: float = 1000.0) -> Trial:
    """Run pytest until the first failure; the limit is processor time, or ten times as much by the clock.

    A busy machine does not end a run early. What the run starts ends with it.
    """
    pid = os.fork()
    if pid == 0:
        _become_the_tests(output, limit_s)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments])
        sys.stdout.flush()
        os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM):
        outcome = "timeout"
    else:
        outcome = "survived" if status == 0 else "killed"
    return Trial(outcome, usage.ru_utime + usage.ru_stime)


def _become_the_tests(output: str, limit_s: float) -> None:
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    # A loop that a mutant made endless must not take the machine's memory.
    resource.setrlimit(resource.RLIMIT_DATA, (8 * GIB, 8 * GIB))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(10 * limit_s))
