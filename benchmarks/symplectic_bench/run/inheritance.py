"""What a process inherits that is forked from the server of measuring processes: noted before every fork.

CUDA and JAX do not survive a fork, and a lock that another thread holds is never released in the child. A process that
initialises CUDA after its fork is sound; only the server must not. The server imports this module, which then looks at
it before every fork; the note reaches the child with everything else.
"""

import _thread
import contextlib
import os
import sys
from pathlib import Path

CUDA_DEVICE = "/dev/nvidia-uvm"
"""The device file that the driver opens when CUDA is initialised, by whichever library. NVML does not open it."""

OPEN_FILES = Path("/proc/self/fd")


def obstacles() -> list[str]:
    """Return what this process has that a fork of it must not inherit."""
    found = []
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or has_open(CUDA_DEVICE):
        found.append("initialised CUDA")
    if "jax" in sys.modules:
        found.append("imported JAX")
    threads = _thread._count()  # besides the main one; also those that the module threading did not start
    if threads:
        found.append(f"started {threads} more Python thread{'s' if threads > 1 else ''}")
    return found


def has_open(device: str, files: Path = OPEN_FILES) -> bool:
    """Return whether this process has the device file open, False where the system does not say."""
    with contextlib.suppress(OSError):
        for file in os.listdir(files):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(files / file) == device:
                    return True
    return False


def inherited() -> str | None:
    """Return in one sentence why this process, forked from the server, cannot measure; None if it can."""
    if not _noted:
        return None
    return (
        f"the server of measuring processes has {' and '.join(_noted)}, which a process forked from it must not"
        " inherit: remove what does this whenever Python starts (sitecustomize, a .pth file) and run the command again"
    )


_noted: list[str] = []


def _note() -> None:
    _noted[:] = obstacles()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note)
