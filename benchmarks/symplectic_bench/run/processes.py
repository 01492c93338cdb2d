"""Calls in fresh processes with a time limit, so that a crash in one does not end the suite.

A process is forked from a server that has only imported modules, in 20 ms instead of seconds, whatever the device: it
initialises CUDA itself. For JAX, which does not survive a fork, it is started from scratch. A process never outlives
the one that started it: it ends when its lifeline, a pipe through which nothing is ever sent, is closed at the other
end.
"""

import contextlib
import functools
import gc
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from symplectic_bench.run.executors.executor import ExecutorError
from symplectic_bench.run.inheritance import inherited
from symplectic_bench.spec.failure import diagnose, diagnose_exit
from symplectic_bench.spec.status import Status

GRACE_S = 10.0
"""Time limit for a process to end after it has sent its last value."""

LONGEST_S = 2e6
"""The longest time limit that can be waited for: the system counts milliseconds in 32 bits."""

PRELOAD = (
    "symplectic_bench.run.inheritance",
    "torch",
    "torch.fx.experimental.symbolic_shapes",
    "torch._dynamo",
    "torchdiffeq",
    "symplectic_bench.run.cells",
    "symplectic_bench.run.training.runner",
)
"""The modules that the server imports for all processes; any that cannot be imported are skipped. torch itself imports
symbolic_shapes, with sympy, at the first torch.autograd.grad (0.6 s), and _dynamo with the first optimizer (1.6 s).
None of them computes, initialises CUDA, starts a thread or plots."""

SERVER_SETTINGS = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Environment variables of the server and its forks. By default torch initialises CUDA to find out whether there is
any."""


@dataclass(frozen=True)
class Limits:
    """How to start a process: the time limit for each of its values, and torch's settings for the call.

    spawned: start it from scratch. cores: the cores it may run on; an empty tuple means all.
    """

    timeout_s: float
    spawned: bool = False
    threads: int = 1
    seed: int = 0
    cores: tuple[int, ...] = ()


@dataclass
class CallOutcome:
    """The outcome of a call, and the values that it sent."""

    status: Status = Status.OK
    reason: str | None = None
    values: list[Any] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


def run(function: Callable[..., Any], args: tuple[Any, ...], limits: Limits) -> CallOutcome:
    """Call `function(*args)` in a fresh process and wait for it.

    The return value is the outcome's only value. A generator's values arrive one by one: the time limit applies to each
    of them, and those sent before a crash are kept. Values are plain numbers, strings, lists and dicts. A process that
    exceeds the limit is killed together with the processes it started. Raises ExecutorError if the server from which
    processes are forked has what they must not inherit.
    """
    if _forks(limits):
        _warn_about_preload()
    return _run(function, args, limits)


def _run(function: Callable[..., Any], args: tuple[Any, ...], limits: Limits) -> CallOutcome:
    outcome = CallOutcome()
    with _started(function, args, limits) as (process, receiver):
        kills = _memory_kills()
        finished = _receive(receiver, outcome, limits.timeout_s)
        process.join(GRACE_S if finished else 0)
        if not finished:
            _explain(outcome, process, limits, kills)
    return outcome


@contextlib.contextmanager
def _started(
    function: Callable[..., Any], args: tuple[Any, ...], limits: Limits
) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start the call; yield its process and the pipe at which its messages arrive. Kill it at the end."""
    context = _context(limits)
    receiver, sender = context.Pipe(duplex=False)
    lifeline, held = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, lifeline, function, args, limits))  # pyright: ignore
    with _without_main_module(), _settings_of_the_server():
        process.start()
    sender.close()
    lifeline.close()
    try:
        yield process, receiver
    finally:
        _kill(process)
        receiver.close()
        held.close()


def _explain(outcome: CallOutcome, process: BaseProcess, limits: Limits, kills: int | None) -> None:
    """Say why the process sends no more. kills: the kernel's count when it began."""
    if outcome.status is Status.TIMEOUT:
        outcome.reason = f"no result for {limits.timeout_s:g} s"
        return
    process.join(GRACE_S)
    more = _memory_kills()
    killed_for_memory = None if kills is None or more is None else more > kills
    outcome.status, outcome.reason = diagnose_exit(process.exitcode, killed_for_memory)


@dataclass
class Conversation:
    """A process that answers one question after another, whose outcome is that of the first one it fails to answer."""

    questions: Connection
    receiver: Connection
    process: BaseProcess
    limits: Limits
    outcome: CallOutcome = field(default_factory=CallOutcome)
    kills: int | None = field(default_factory=lambda: _memory_kills())

    def put(self, question: Any) -> None:
        """Send a question. Its answer must be taken by `take` before the next one is sent."""
        with contextlib.suppress(BrokenPipeError):
            self.questions.send(question)

    def take(self) -> Any:
        """Return the answer to the question that was put, or None once the process has ended or failed to answer."""
        if not self.outcome.ok:
            return None
        answers = len(self.outcome.values)
        if not _receive(self.receiver, self.outcome, self.limits.timeout_s, one=True):
            _explain(self.outcome, self.process, self.limits, self.kills)
        return self.outcome.values[-1] if len(self.outcome.values) > answers else None

    def ask(self, question: Any) -> Any:
        """Put a question and take the answer."""
        self.put(question)
        return self.take()


@contextlib.contextmanager
def conversation(function: Callable[..., Any], args: tuple[Any, ...], limits: Limits) -> Iterator[Conversation]:
    """Start `function(questions, *args)` in a fresh process, a generator that yields an answer to each it receives."""
    if _forks(limits):
        _warn_about_preload()
    received, questions = _context(limits).Pipe(duplex=False)
    with received, questions, _started(function, (received, *args), limits) as (process, receiver):
        received.close()
        yield Conversation(questions, receiver, process, limits)


@functools.cache
def _warn_about_preload() -> None:
    """Ask the server once which modules it failed to import, and warn: every process would have to import them itself.

    multiprocessing does not report such failures. A module that is not installed does not count as one.
    """
    outcome = _run(_not_preloaded, (PRELOAD,), Limits(timeout_s=120.0))
    failures = outcome.values[0] if outcome.ok else {"anything": str(outcome.reason)}
    for name, reason in failures.items():
        warnings.warn(
            f"the server of measuring processes could not import {name} ({reason}): every cell imports it itself, "
            "which takes seconds and counts as memory",
            RuntimeWarning,
            stacklevel=3,
        )


def _not_preloaded(names: Sequence[str]) -> dict[str, str]:
    """Return the modules of `names` that are not loaded, and why. Called in a forked process."""
    failures = {}
    for name in names:
        if name in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is None:
            continue
        try:
            importlib.import_module(name)
            failures[name] = "it can be imported in a new process: the server has another sys.path"
        except Exception as error:
            failures[name] = diagnose(error)[1]
    return failures


def _receive(receiver: Connection, outcome: CallOutcome, timeout_s: float, one: bool = False) -> bool:
    """Collect messages. Return True if the call ends, False if the process dies or the time is up.

    one: collect one value only, and return True if it came.
    """
    while True:
        if not receiver.poll(min(timeout_s, LONGEST_S)):
            outcome.status = Status.TIMEOUT
            return False
        try:
            kind, content = receiver.recv()
        except EOFError:
            return False
        if kind == "value":
            outcome.values.append(content)
            if one:
                return True
        elif kind == "failed":
            outcome.status, outcome.reason = Status(content[0]), content[1]
        elif kind == "unsound":
            raise ExecutorError(content)
        else:
            return True


def _child(
    sender: Connection, lifeline: Connection, function: Callable[..., Any], args: tuple[Any, ...], limits: Limits
) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, so that it can be killed together with the processes it starts
        threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    if why := inherited():
        sender.send(("unsound", why))
        return
    if limits.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, limits.cores)
    gc.freeze()  # do not scan imported modules: a collection takes 1 ms instead of 100 ms
    torch.set_num_threads(limits.threads)
    torch.set_num_interop_threads(limits.threads)
    torch.manual_seed(limits.seed)
    try:
        result = function(*args)
        for value in result if inspect.isgenerator(result) else (result,):
            sender.send(("value", value))
    except Exception as error:
        status, reason = diagnose(error)
        sender.send(("failed", (status.value, reason)))
    sender.send(("end", None))
    sender.close()


def _die_with(lifeline: Connection) -> None:
    """Wait until the other end, held only by the starting process, is closed; then kill this process group."""
    lifeline.poll(None)
    os.killpg(0, signal.SIGKILL)


def _forks(limits: Limits) -> bool:
    return not limits.spawned and "forkserver" in multiprocessing.get_all_start_methods()


def _context(limits: Limits) -> BaseContext:
    if not _forks(limits):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


def _kill(process: BaseProcess) -> None:
    """Kill the process and its group, if they still run."""
    if process.pid is not None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def _memory_kills() -> int | None:
    """Return how many processes the kernel has killed for lack of memory since boot, or None if it does not say."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide the main module: multiprocessing would import it in every child, with its imports (pandas, ...)."""
    with _STARTING:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


_STARTING = threading.Lock()


@contextlib.contextmanager
def _settings_of_the_server() -> Iterator[None]:
    """Set SERVER_SETTINGS in the environment, from which the server takes its own if it is started now."""
    before = {name: os.environ.get(name) for name in SERVER_SETTINGS}
    os.environ.update(SERVER_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
