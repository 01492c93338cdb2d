"""Data sets that need no files: generated stand-ins for published tables, and scikit-learn's."""

from collections.abc import Callable

import numpy as np

from symplectic_bench.data.published import PUBLISHED, SYNTHETIC
from symplectic_bench.data.scikit_learn import read_digits, read_table
from symplectic_bench.data.splits import Parts, split_off_tenths, standardise

SYNTHETIC_ROWS = (10_000, 1_000, 1_000)
"""Train, validation and test rows of a generated table."""

MODES = 5
"""The number of normal distributions in a generated table's mixture."""


def _mixture(dim: int) -> Parts:
    """Draw rows from a mixture of MODES normal distributions with random means and covariances; standardise them."""
    rng = np.random.default_rng(dim)
    centers = 2 * rng.standard_normal((MODES, dim))
    shapes = rng.standard_normal((MODES, dim, dim)) / np.sqrt(dim)
    rows = sum(SYNTHETIC_ROWS)
    which = rng.integers(MODES, size=rows)
    table = centers[which] + np.einsum("nij,nj->ni", shapes[which], rng.standard_normal((rows, dim)))
    first, second = SYNTHETIC_ROWS[0], SYNTHETIC_ROWS[0] + SYNTHETIC_ROWS[1]
    return standardise((table[:first], table[first:second], table[second:]))


def _digits() -> Parts:
    """Return 8 x 8 images as shuffled rows of 64 pixels 0 .. 16 and a label."""
    pixels, labels = read_digits()
    table = np.hstack([pixels, labels[:, None]])[np.random.default_rng(0).permutation(len(pixels))]
    return split_off_tenths(table)


def _table(name: str) -> Parts:
    """Return one of scikit-learn's tables, shuffled and standardised."""
    table = read_table(name)
    return standardise(split_off_tenths(table[np.random.default_rng(0).permutation(len(table))]))


STAND_INS: dict[str, Callable[[], Parts]] = {
    "digits": _digits,
    **{name: lambda name=name: _table(name) for name in ("breast_cancer", "wine")},
    **{f"{SYNTHETIC}{name}": lambda dim=data.dim: _mixture(dim) for name, data in PUBLISHED.items() if name != "mnist"},
}
"""The functions that make the data sets, by name."""
