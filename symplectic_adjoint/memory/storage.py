"""Storage of the tensors kept for the backward pass: on the solve's device, in host memory, or on disk."""

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
    """A place to keep tensors until the backward pass."""

    def put(self, x: Tensor) -> Tensor:
        """Return x itself, or a copy of it in this storage."""
        ...


class OnDevice:
    """Leaves tensors on the device of the solve, without a copy."""

    def put(self, x: Tensor) -> Tensor:
        return x


class OnHost:
    """Copies tensors to host memory, pinned so that a GPU copies asynchronously. CPU tensors are not copied."""

    def put(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return x
        pinned = x.device.type == "cuda"
        return torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=pinned).copy_(x, non_blocking=pinned)


class OnDisk:
    """Copies tensors to unnamed memory-mapped files in a folder (by default the system's temporary folder).

    The operating system frees a file once its last tensor is freed or the process ends, even by a crash. Raises
    OffloadError if the folder is full or not writable.
    """

    CHUNK_BYTES = 4 * 2**20
    """Size of the files that small tensors share."""

    def __init__(self, folder: str | None):
        self._folder = folder or tempfile.gettempdir()
        self._chunk: mmap.mmap | None = None
        self._used_bytes = 0
        self._map_file(mmap.PAGESIZE)  # fail before any work is done if the folder is unusable

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
            self._chunk.madvise(mmap.MADV_DONTNEED)  # a full chunk need not stay resident: its file holds it
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


def make_storage(offload: Offload, folder: str | None) -> Storage:
    """Return the storage selected by a gradient's options offload and folder."""
    return OnDisk(folder) if offload == "disk" else OnHost() if offload == "cpu" else OnDevice()


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return x on `device`, the device of the solve; a copy from pinned memory is asynchronous."""
    return x if x.device == device else x.to(device, non_blocking=True)


def obstacle_of_offload(offload: Offload) -> str | None:
    """Return why a user cannot capture a solve whose tensors are kept off the card, None if they are not."""
    return None if offload is None else f"offload={offload!r}, whose host memory a replay would overwrite: leave it out"


def check_offload(offload: Any, folder: Any) -> None:
    """Raise ValueError if the options offload and folder do not select a storage."""
    if offload not in (None, "cpu", "disk"):
        raise ValueError(f'offload must be None, "cpu" or "disk", got {offload!r}')
    if folder is not None and offload != "disk":
        raise ValueError(f'folder={folder!r} belongs to offload="disk", got offload={offload!r}')
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder must be a path, got {folder!r}")
