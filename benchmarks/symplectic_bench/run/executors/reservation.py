"""Reserve devices of this machine for one measurement, across processes: two timed cells never share a device.

Each core and each GPU is a locked file in one folder per user. The operating system releases the lock when its holder
dies.
"""

import fcntl
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from symplectic_bench.run.executors.executor import ProgressCallback

PAUSE_S = 0.05
"""Average time between attempts."""


@contextmanager
def reserved(device: str, threads: int, on_progress: ProgressCallback) -> Iterator[tuple[int, ...]]:
    """Wait until the device and one core per thread are free, and reserve them while the block runs.

    Yield the cores: all of them if there are more threads than cores, none on a system that cannot pin processes.
    """
    cores = sorted(os.sched_getaffinity(0), reverse=True) if hasattr(os, "sched_getaffinity") else []
    wanted = min(threads, len(cores))
    others = [] if device == "cpu" and cores else [_name(device)]
    while True:
        with ExitStack() as held:
            taken = _take([f"core-{core}" for core in cores], held, wanted)
            if len(taken) == wanted and len(_take(others, held, len(others))) == len(others):
                yield tuple(sorted(int(name.removeprefix("core-")) for name in taken))
                return
        on_progress(f"waiting for {_name(device)} or a core, in use by another measurement on this machine", waits=True)
        time.sleep(random.uniform(0.5, 1.5) * PAUSE_S)


def _take(names: Sequence[str], held: ExitStack, wanted: int) -> list[str]:
    """Lock up to `wanted` free files, and return their names."""
    taken: list[str] = []
    for name in names:
        if len(taken) == wanted:
            break
        file = held.enter_context(_file(name))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        taken.append(name)
    return taken


def _name(device: str) -> str:
    """Return the device's name on this machine: "cuda" is the first GPU visible to this process."""
    return f"cuda-{os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0]}" if device == "cuda" else device


# Not the folder in TMPDIR: queueing systems give every job a different one.
FOLDER = Path("/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()) / f"symplectic-bench-devices-{os.getuid()}"


def _file(name: str) -> IO[str]:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    return (FOLDER / name).open("w")
