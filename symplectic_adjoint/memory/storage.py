"""Storage of the tensors kept for the backward pass: where they were made, in host memory, or on disk."""

import mmap
import os
import tempfile
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from symplectic_adjoint.errors import OffloadError
from symplectic_adjoint.memory.byte_size import format_bytes

Offload = Literal["cpu", "disk"] | None


class Storage(Protocol):
    """A place for kept tensors."""

    def put(self, x: Tensor) -> Tensor:
        """Return x itself or a copy of it in this storage."""
        ...


class AsMade:
    """Leaves tensors on the device of the solve."""

    def put(self, x: Tensor) -> Tensor:
        return x


class OnHost:
    """Copies tensors to host memory, pinned so that a GPU copies asynchronously. CPU tensors are left alone."""

    def put(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return x
        pinned = x.device.type == "cuda"
        return torch.empty(x.shape, dtype=x.dtype, pin_memory=pinned).copy_(x, non_blocking=pinned)


class OnDisk:
    """Copies tensors to memory-mapped files without a name, in a folder (the system's temporary one by default).

    The system frees a file with its last tensor, or with the process, however it ends. Raises OffloadError if the
    folder is full or cannot be written to.
    """

    CHUNK_BYTES = 4 * 2**20
    """Size of the files that smaller tensors share."""

    def __init__(self, folder: str | None):
        self._folder = folder or tempfile.gettempdir()
        self._chunk: mmap.mmap | None = None
        self._used_bytes = 0
        self._map_file(mmap.PAGESIZE)  # so that an unusable folder is an error before any work is done

    def put(self, x: Tensor) -> Tensor:
        nbytes = x.numel() * x.element_size()
        if nbytes == 0:
            return x
        if self._chunk is None or self._used_bytes + nbytes > len(self._chunk):
            self._chunk, self._used_bytes = self._map_file(max(nbytes, self.CHUNK_BYTES)), 0
        copy = torch.frombuffer(self._chunk, dtype=x.dtype, count=x.numel(), offset=self._used_bytes).view(x.shape)
        copy.copy_(x)
        self._used_bytes += -(-nbytes // 64) * 64  # the alignment of torch's own memory
        if self._used_bytes + nbytes > len(self._chunk) and hasattr(mmap, "MADV_DONTNEED"):
            self._chunk.madvise(mmap.MADV_DONTNEED)  # moves it from the process's memory to the file
        return copy

    def _map_file(self, nbytes: int) -> mmap.mmap:
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
                f'offload="disk" needs {format_bytes(nbytes)} more in {self._folder!r}: {error.strerror or error}. '
                "Give another folder as folder=, or keep less"
            ) from error


def storage(offload: Offload, folder: str | None) -> Storage:
    """Return the storage that these options of a gradient ask for."""
    return OnDisk(folder) if offload == "disk" else OnHost() if offload == "cpu" else AsMade()


def brought(x: Tensor, device: torch.device) -> Tensor:
    """Return x on `device`, the device of the solve. A copy from pinned memory is asynchronous."""
    return x if x.device == device else x.to(device, non_blocking=True)


def check_offload(offload: Any, folder: Any) -> None:
    """Raise ValueError if these options name no storage."""
    if offload not in (None, "cpu", "disk"):
        raise ValueError(f'offload must be None, "cpu" or "disk", got {offload!r}')
    if folder is not None and offload != "disk":
        raise ValueError(f'folder={folder!r} belongs to offload="disk", got offload={offload!r}')
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder must be a path, got {folder!r}")
