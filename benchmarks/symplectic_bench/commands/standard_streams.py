"""Standard output and standard error that may fail: a closed pipe or a full disk there ends no command."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

KEPT_BYTES = 2000
"""How much of the end of what nobody could read is told at the end of a command that fails."""


class LastingFile(io.FileIO):
    """The file below a standard stream. After a write fails, it accepts the rest and keeps only the end of it.

    `other` is the file that is told so, directly: a buffer's lock could be held by a thread that waits for this one.
    """

    def __init__(self, descriptor: int, title: str, failure: OSError | None = None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.title, self.failure, self.unread = title, failure, b""
        self.other: LastingFile | None = None

    def write(self, data: Any, /) -> int:
        """Write the data, or take it if nobody can read it. Never raises OSError."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as why:
                self.failure = why
        untold, self.unread = not self.unread, (self.unread + bytes(data))[-KEPT_BYTES:]
        if untold and self.other is not None:
            reason = os.strerror(self.failure.errno or errno.EIO)
            line = f"{self.title} cannot be written to ({reason}): the command goes on without it\n"
            self.other.write(line.encode())
        return len(data)

    def tell_the_end(self) -> None:
        """Write the last whole lines that nobody could read to the other stream."""
        if self.other is not None and self.other.failure is None:
            cut = self.unread.find(b"\n") + 1 if len(self.unread) == KEPT_BYTES else 0
            self.other.write(self.unread[cut:])


@contextmanager
def lasting_streams(failure: int) -> Iterator[None]:
    """Replace sys.stdout and sys.stderr by streams on LastingFile, for a command that ends in SystemExit.

    Its exit code stays if a reader has gone: the command did what it says. Any other failure to write, such as a full
    disk, makes a 0 the code `failure`. If the code is not 0, the other stream tells the end of what nobody could read.
    """
    _occupy_closed_descriptors()
    out, err = _file(sys.stdout, "standard output"), _file(sys.stderr, "standard error")
    out.other, err.other = err, out
    sys.stdout, sys.stderr = _text(out, sys.stdout), _text(err, sys.stderr)
    try:
        yield
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        failures = [file.failure.errno for file in (out, err) if file.failure is not None and file.unread]
        if not end.code and any(number not in (errno.EPIPE, errno.EBADF) for number in failures):
            end.code = failure
        for file in (out, err):
            if end.code and file.failure is not None:
                file.tell_the_end()
        raise


def _occupy_closed_descriptors() -> None:
    """Open /dev/null wherever 0, 1 or 2 is closed: the next file opened, of rows perhaps, would be taken for it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one


def _file(stream: TextIO | None, title: str) -> LastingFile:
    if stream is None:
        closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        return LastingFile(os.open(os.devnull, os.O_WRONLY), title, closed)
    stream.flush()
    return LastingFile(stream.fileno(), title)


def _text(file: LastingFile, stream: TextIO | None) -> TextIO:
    """Return a text stream on the file. It escapes what its encoding lacks, such as a name that is not UTF-8."""
    encoding = "utf-8" if stream is None else stream.encoding
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, "backslashreplace", line_buffering=True)
