"""Tables of real data, standardised: the ones that ship inside scikit-learn, cached as plain arrays.

Measuring processes read the cache: importing scikit-learn takes longer than most cells and moves their memory.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.data.arrays import load_arrays, save_arrays

TABLES = ("digits", "breast_cancer", "wine")
"""1797 x 64 (8 x 8 images), 569 x 30 and 178 x 13."""


class MissingTable(ValueError):
    """A table that is not cached, or that there is not."""


def load_table(name: str, cache_dir: Path | None) -> Tensor:
    """The cached table: (rows, columns), float64, every column of mean 0 and variance 1."""
    if name not in TABLES:
        raise MissingTable(f"data must be one of {', '.join(TABLES)}; got {name!r}")
    if cache_dir is None or not table_file(name, cache_dir).exists():
        raise MissingTable(f"the table {name} is not cached: call cache_table({name!r}, cache_dir) first")
    return torch.from_numpy(load_arrays(table_file(name, cache_dir))["rows"])


def cache_table(name: str, cache_dir: Path) -> None:
    """Write the table into cache_dir, unless it is there. Imports scikit-learn."""
    if name not in TABLES:
        raise MissingTable(f"data must be one of {', '.join(TABLES)}; got {name!r}")
    target = table_file(name, cache_dir)
    if target.exists():
        return
    save_arrays(target, rows=_standardise(read_table(name)))


def table_file(name: str, cache_dir: Path) -> Path:
    """Where the table is cached, or will be."""
    return cache_dir / f"table-{name}.npz"


def read_table(name: str) -> np.ndarray:
    """One of TABLES as it comes, but for the digits' noise: (rows, columns). Imports scikit-learn."""
    # Imported here because only the process that fills the cache may pay for it.
    from sklearn import datasets

    if name == "digits":
        # Pixels are integers 0..16. A density on integers is unbounded, so each gets uniform noise of one level
        # ("dequantisation"), the same for everyone.
        pixels, _ = read_digits()
        return (pixels + np.random.default_rng(0).random(pixels.shape)) / 17
    table, _ = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name](return_X_y=True)
    return np.asarray(table, dtype=np.float64)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: pixels 0 .. 16, (1797, 64), and what each shows, (1797,)."""
    # Imported here because only the process that fills the cache may pay for it.
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    return np.asarray(pixels, dtype=np.float64), np.asarray(labels, dtype=np.float64)


def _standardise(table: np.ndarray) -> np.ndarray:
    return (table - table.mean(axis=0)) / table.std(axis=0)
