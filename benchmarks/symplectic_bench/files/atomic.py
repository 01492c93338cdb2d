"""Atomic file replacement: after a crash or on a full disk the file is either complete or unchanged."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to `path` if the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> Path:
    """Replace the file's contents with `text`, in UTF-8, and return its path."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
