"""Arrays in files: written whole or not at all, and read without running anything that is in them."""

from pathlib import Path

import numpy as np

from symplectic_bench.data.atomic_files import replacing


def save_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file. Another process never reads half of it."""
    with replacing(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """Everything in an .npz file."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays.items())
