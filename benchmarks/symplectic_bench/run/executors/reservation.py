"""Reserve devices of this machine for one measurement, across processes: two timed cells never share a device.

Each core and each GPU is a locked file in one folder per user. The operating system releases the lock when its holder
dies.
"""

import fcntl
import os
import random
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from symplectic_bench.run.executors.executor import ExecutorError, ProgressCallback

PAUSE_S = 0.05
"""Average time between attempts."""


@contextmanager
def reserved(device: str, threads: int, on_progress: ProgressCallback) -> Iterator[tuple[int, ...]]:
    """Wait until the device and one core per thread are free, and reserve them while the block runs.

    Yield the cores: all of them if there are more threads than cores, none on a system that cannot pin processes.
    Raises ExecutorError if there is no safe place for the locks.
    """
    cores = sorted(os.sched_getaffinity(0), reverse=True) if hasattr(os, "sched_getaffinity") else []
    wanted = min(threads, len(cores))
    others = [] if device == "cpu" and cores else [_name(device)]
    while True:
        with ExitStack() as held:
            folder = held.enter_context(_folder())
            taken = _take([f"core-{core}" for core in cores], folder, held, wanted)
            if len(taken) == wanted and len(_take(others, folder, held, len(others))) == len(others):
                yield tuple(sorted(int(name.removeprefix("core-")) for name in taken))
                return
        on_progress(f"waiting for {_name(device)} or a core, in use by another measurement on this machine", waits=True)
        time.sleep(random.uniform(0.5, 1.5) * PAUSE_S)


def _take(names: Sequence[str], folder: int, held: ExitStack, wanted: int) -> list[str]:
    """Lock up to `wanted` free files of the folder, and return their names."""
    taken: list[str] = []
    for name in names:
        if len(taken) == wanted:
            break
        file = _open(name, folder)
        held.callback(os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        taken.append(name)
    return taken


def _name(device: str) -> str:
    """Return the device's name on this machine: "cuda" is the first GPU visible to this process."""
    return f"cuda-{os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0]}" if device == "cuda" else device


NAME = f"symplectic-bench-devices-{os.getuid()}"


def _places() -> Iterator[Path]:
    """Yield the folders in which the locks may lie, in an order that is the same for all processes of a user.

    TMPDIR comes last: queueing systems give every job a different one, and jobs would not see each other's locks.
    """
    for runtime in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}"):
        with suppress(OSError):
            if Path(runtime).is_absolute() and os.stat(runtime).st_uid == os.getuid():  # not that of before a sudo
                yield Path(runtime)
    yield Path("/tmp")
    with suppress(OSError):
        yield Path(tempfile.gettempdir())


@contextmanager
def _folder() -> Iterator[int]:
    """Open the first folder of locks that is this user's alone, making it if need be; yield its descriptor."""
    refused: list[str] = []
    for place in _places():
        try:
            folder = _own_folder(place / NAME)
        except OSError as why:
            refused.append(f"{place / NAME}: {why.strerror}")
            continue
        try:
            yield folder
        finally:
            os.close(folder)
        return
    tried = "; ".join(dict.fromkeys(refused))
    advice = "remove what is there, or set XDG_RUNTIME_DIR to a folder of your own"
    raise ExecutorError(f"no folder in which to reserve cores and GPUs ({tried}): {advice}")


def _own_folder(path: Path) -> int:
    """Open a folder that this user, and no other, can write to. Raise OSError, with the reason, for any other thing."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(folder)
    if found.st_uid != os.getuid():
        reason = "it belongs to another user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = "other users may write to it"
    elif not os.access(path, os.W_OK | os.X_OK):
        reason = "it is not writable"
    else:
        return folder
    os.close(folder)
    raise OSError(0, reason)


def _open(name: str, folder: int) -> int:
    """Open a file of the folder to lock it. It is never written to, and a link in its place is not followed."""
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    except OSError as why:
        advice = "remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        raise ExecutorError(f"{NAME}/{name} cannot be opened ({why.strerror}): {advice}") from why
