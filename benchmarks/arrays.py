"""Arrays in files: written whole or not at all, and read without running anything that is in them."""

import os
import tempfile
from pathlib import Path

import numpy as np


def save_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file. Another process never reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        try:
            np.savez_compressed(part, allow_pickle=False, **arrays)
            part.flush()
            os.replace(part.name, file)
        except BaseException:
            os.unlink(part.name)
            raise


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """Everything in an .npz file."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays.items())
