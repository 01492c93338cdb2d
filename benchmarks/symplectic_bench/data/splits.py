"""The parts of a data set: train, validation and test."""

import numpy as np

SPLITS = ("train", "validation", "test")

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The rows of each of SPLITS, (rows, columns)."""


def split_off_tenths(table: np.ndarray) -> Parts:
    """Return the last tenth of the rows as the test set and the last tenth of the rest as the validation set."""
    tenth = len(table) // 10
    rest, test = table[:-tenth], table[-tenth:]
    tenth = len(rest) // 10
    return rest[:-tenth], rest[-tenth:], test


def standardise(parts: Parts) -> Parts:
    """Scale every column to mean 0 and variance 1 over the training and validation rows."""
    seen = np.vstack(parts[:2])
    mean, spread = seen.mean(axis=0), seen.std(axis=0)
    train, validation, test = ((part - mean) / spread for part in parts)
    return train, validation, test
