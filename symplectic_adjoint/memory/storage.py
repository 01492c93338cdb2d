"""Where the tensors that are kept for the way back lie: as they are made, in the host's memory, or on disk."""

import mmap
import os
import tempfile
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from symplectic_adjoint.errors import OffloadError
from symplectic_adjoint.memory.byte_size import in_words

Offload = Literal["cpu", "disk"] | None


class Storage(Protocol):
    def put(self, x: Tensor) -> Tensor:
        """x itself, or a copy of it that lies where it is to lie."""
        ...


class AsMade:
    """On the device of the solve."""

    def put(self, x: Tensor) -> Tensor:
        return x


class OnHost:
    """In the host's memory: pinned, so that a GPU copies while the host goes on. The CPU's own are there already."""

    def put(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return x
        pinned = x.device.type == "cuda"
        return torch.empty(x.shape, dtype=x.dtype, pin_memory=pinned).copy_(x, non_blocking=pinned)


class OnDisk:
    """In memory-mapped files of a folder, which have no name there.

    The system frees them with their last tensor or with the process, however that ends. Raises OffloadError where the
    folder cannot be written or is full.
    """

    CHUNK_BYTES = 4 * 2**20
    """Smaller tensors share a file of this size."""

    def __init__(self, folder: str | None):
        self._folder = folder or tempfile.gettempdir()
        self._chunk: mmap.mmap | None = None
        self._taken = 0
        self._mapped(mmap.PAGESIZE)  # before any work is done

    def put(self, x: Tensor) -> Tensor:
        nbytes = x.numel() * x.element_size()
        if nbytes == 0:
            return x
        if self._chunk is None or self._taken + nbytes > len(self._chunk):
            self._chunk, self._taken = self._mapped(max(nbytes, self.CHUNK_BYTES)), 0
        there = torch.frombuffer(self._chunk, dtype=x.dtype, count=x.numel(), offset=self._taken).view(x.shape)
        there.copy_(x)
        self._taken += -(-nbytes // 64) * 64  # aligned as torch's own memory is
        if self._taken + nbytes > len(self._chunk) and hasattr(mmap, "MADV_DONTNEED"):
            self._chunk.madvise(mmap.MADV_DONTNEED)  # out of the process's memory, into the file's
        return there

    def _mapped(self, nbytes: int) -> mmap.mmap:
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, nbytes)
                else:
                    file.write(bytes(nbytes))
                    file.flush()
                return mmap.mmap(file.fileno(), nbytes)
        except OSError as error:
            raise OffloadError(
                f'offload="disk" needs {in_words(nbytes)} more in {self._folder!r}: {error.strerror or error}. Give '
                "another folder as folder=, or keep less"
            ) from error


def storage(offload: Offload, folder: str | None) -> Storage:
    return OnDisk(folder) if offload == "disk" else OnHost() if offload == "cpu" else AsMade()


def brought(x: Tensor, device: torch.device) -> Tensor:
    """x on the device of the solve."""
    return x if x.device == device else x.to(device, non_blocking=True)


def check_offload(offload: Any, folder: Any) -> None:
    """Raises ValueError for what no Storage is made from."""
    if offload not in (None, "cpu", "disk"):
        raise ValueError(f'offload must be None, "cpu" or "disk", got {offload!r}')
    if folder is not None and offload != "disk":
        raise ValueError(f'folder={folder!r} belongs to offload="disk", got offload={offload!r}')
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder must be a path, got {folder!r}")
