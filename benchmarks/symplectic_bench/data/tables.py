"""Tables for problems, standardised and cached as plain arrays: scikit-learn's, and stand-ins for published ones.

Measuring processes read the cache: importing scikit-learn takes longer than most cells and changes their memory.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.data.errors import MissingData
from symplectic_bench.data.published import SYNTHETIC
from symplectic_bench.data.scikit_learn import TABLES, read_table
from symplectic_bench.data.stand_ins import STAND_INS
from symplectic_bench.files.arrays import load_arrays, save_arrays

NAMES = (*(name for name in STAND_INS if name.startswith(SYNTHETIC)), *TABLES)


def load_table(name: str, cache_dir: Path | None) -> Tensor:
    """Return the cached table, (rows, columns) in float64, with every column of mean 0 and variance 1.

    Raise MissingData if there is no such table or it is not cached.
    """
    _check_name(name)
    if cache_dir is None or not table_file(name, cache_dir).exists():
        raise MissingData(f"the table {name} is not cached: call cache_table({name!r}, cache_dir) first")
    return torch.from_numpy(load_arrays(table_file(name, cache_dir))["rows"])


def cache_table(name: str, cache_dir: Path) -> None:
    """Write the table into cache_dir unless it is there. Raise MissingData if there is no such table.

    Imports scikit-learn.
    """
    _check_name(name)
    target = table_file(name, cache_dir)
    if target.exists():
        return
    save_arrays(target, rows=_standardise(read_table(name) if name in TABLES else STAND_INS[name]()[0]))


def table_file(name: str, cache_dir: Path) -> Path:
    """Return the path at which the table is cached."""
    return cache_dir / f"table-{name}.npz"


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise MissingData(f"data must be one of {', '.join(NAMES)}; got {name!r}")


def _standardise(table: np.ndarray) -> np.ndarray:
    return (table - table.mean(axis=0)) / table.std(axis=0)
