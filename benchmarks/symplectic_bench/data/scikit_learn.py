"""The tables of real data that come with scikit-learn."""

import numpy as np

TABLES = ("digits", "breast_cancer", "wine")
"""1797 x 64 (8 x 8 images), 569 x 30 and 178 x 13."""


def read_table(name: str) -> np.ndarray:
    """Return one of TABLES, not standardised, (rows, columns) in float64; digits are dequantised."""
    # Imported here because only the process that fills the cache should pay for it.
    from sklearn import datasets

    if name == "digits":
        # Pixels are integers 0..16. A density on integers is unbounded, so uniform noise one level wide is added
        # ("dequantisation"), the same in every run.
        pixels, _ = read_digits()
        return (pixels + np.random.default_rng(0).random(pixels.shape)) / 17
    table, _ = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name](return_X_y=True)
    return np.asarray(table, dtype=np.float64)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: pixels 0 .. 16, (1797, 64), and labels 0 .. 9, (1797,), both in float64."""
    # Imported here because only the process that fills the cache should pay for it.
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    return np.asarray(pixels, dtype=np.float64), np.asarray(labels, dtype=np.float64)
