"""Arrays in .npz files, written atomically and read without unpickling."""

from pathlib import Path

import numpy as np

from symplectic_bench.files.atomic import replacing


def save_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file atomically, so that no other process reads a partial one."""
    with replacing(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file, by name."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays.items())
