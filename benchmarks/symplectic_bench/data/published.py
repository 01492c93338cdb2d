"""The published data sets, read from their files and prepared as by their authors.

POWER, GAS, HEPMASS, MINIBOONE and BSDS300 are those of Papamakarios, Pavlakou and Murray, Masked Autoregressive Flow
for Density Estimation, NeurIPS 2017. The dropped columns, the added noise and the split of the rows follow that paper's
code; the resulting numbers of rows and columns are checked against the published ones.
"""

import csv
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symplectic_bench.data.errors import MissingData
from symplectic_bench.data.splits import SPLITS, Parts, split_off_tenths, standardise

MAF = "https://zenodo.org/records/1161203"
"""The authors' release of their files, data.tar.gz."""

GAS_PICKLE = "gas/ethylene_CO.pickle"
"""The file of GAS in the release. A pickle can run arbitrary code, so it is never read: a .npy table replaces it."""

SYNTHETIC = "synthetic-"
"""The prefix of the name of a generated stand-in for a published table."""


@dataclass(frozen=True)
class Published:
    """A data set published as files.

    dim is its number of columns, rows the numbers of its train, validation and test rows after preparation. files are
    paths relative to the data folder, source is the address at which they are published, and prepare(paths) turns them
    into the three parts.
    """

    name: str
    dim: int
    rows: tuple[int, int, int]
    files: tuple[str, ...]
    source: str
    prepare: Callable[[Sequence[Path]], Parts]

    @property
    def stand_in(self) -> str:
        """The name of the data set that replaces this one when its files are missing."""
        return "digits" if self.name == "mnist" else f"{SYNTHETIC}{self.name}"

    def is_available(self, data_dir: Path | None) -> bool:
        """Return whether all files are in data_dir."""
        return data_dir is not None and all((data_dir / file).exists() for file in self.files)

    def read(self, data_dir: Path | None) -> Parts:
        """Return the prepared parts.

        Raise MissingData if files are missing or do not have the published numbers of rows and columns.
        """
        if data_dir is None or not self.is_available(data_dir):
            missing = self.files if data_dir is None else [f for f in self.files if not (data_dir / f).exists()]
            where = "--data-dir, which was not given" if data_dir is None else f"--data-dir {data_dir.name}"
            raise MissingData(
                f"{self.name}: no {', '.join(missing)} in {where}. They are published at {self.source}; put them there"
                f" under these names, or train on {self.stand_in}"
            )
        parts = self.prepare([data_dir / file for file in self.files])
        shapes = [part.shape for part in parts]
        expected = [(rows, self.dim) for rows in self.rows]
        if shapes != expected:
            raise MissingData(
                f"{self.name}: {', '.join(self.files)} give train, validation and test sets of shapes {shapes}, but"
                f" the published ones have {expected}: get the files from {self.source}"
            )
        return parts


def _power(files: Sequence[Path]) -> Parts:
    """Prepare household electric power consumption.

    Drop the global reactive power and the intensity; add uniform noise as wide as the last recorded digit.
    """
    rng = np.random.RandomState(42)
    table = np.load(files[0], allow_pickle=False)
    if table.ndim != 2 or table.shape[1] < 8:
        raise MissingData(f"power: {files[0].name} must hold a table of 8 columns; got shape {table.shape}")
    rng.shuffle(table)
    rows = len(table)
    table = np.delete(np.delete(table, 3, axis=1), 1, axis=1)
    voltage = 0.01 * rng.rand(rows, 1)
    power = 0.001 * rng.rand(rows, 1)
    meters = rng.rand(rows, 3)
    time = np.zeros((rows, 1))
    return standardise(split_off_tenths(table + np.hstack((power, voltage, meters, time))))


def _gas(files: Sequence[Path]) -> Parts:
    """Prepare gas sensor readings: keep the last of strongly correlated columns; standardise over all rows."""
    table = np.load(files[0], allow_pickle=False)
    while True:
        alike = (np.corrcoef(table, rowvar=False) > 0.98).sum(axis=1)
        if (alike == 1).all():
            return split_off_tenths((table - table.mean(axis=0)) / table.std(axis=0, ddof=1))
        table = np.delete(table, int(np.flatnonzero(alike > 1)[0]), axis=1)


def _hepmass(files: Sequence[Path]) -> Parts:
    """Prepare particle collisions: keep signal events, and drop columns whose minimum occurs more than 5 times."""
    train, test = (_signals(file) for file in files)
    test = test[:, : train.shape[1]]  # the test file has an extra column
    kept = (train == train.min(axis=0)).sum(axis=0) <= 5
    train, test = train[:, kept], test[:, kept]
    mean, spread = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = (train - mean) / spread, (test - mean) / spread
    tenth = len(train) // 10
    return train[:-tenth], train[-tenth:], test


def _signals(file: Path) -> np.ndarray:
    with file.open(newline="") as lines:
        rows = csv.reader(lines)
        width = len(next(rows))
        return np.array([[float(x) for x in row[1:width]] for row in rows if float(row[0]) == 1], dtype=np.float64)


def _miniboone(files: Sequence[Path]) -> Parts:
    """Prepare neutrino events. The authors' file already lacks the columns that are mostly one value."""
    return standardise(split_off_tenths(np.load(files[0], allow_pickle=False)))


def _bsds300(files: Sequence[Path]) -> Parts:
    """Read patches of 8 x 8 grey pixels minus their mean, without the last pixel, as they are in the file."""
    try:
        import h5py  # Imported here because it is an optional dependency that only this data set needs.
    except ImportError as why:
        raise MissingData('bsds300: its file is HDF5: python -m pip install ".[data]" installs h5py') from why
    with h5py.File(files[0]) as file:
        train, validation, test = (np.asarray(file[split]) for split in SPLITS)
        return train, validation, test


def _mnist(files: Sequence[Path]) -> Parts:
    """Read rows of 784 pixels 0 .. 255 and a label; the last 10,000 training rows are for validation."""
    train, test = (np.hstack([_idx(files[i], 3), _idx(files[i + 1], 1)]) for i in (0, 2))
    return train[:-10_000], train[-10_000:], test


def _idx(file: Path, axes: int) -> np.ndarray:
    """Read a gzipped IDX file: two zeros, the type 8 for bytes, the number of axes, their lengths, then the bytes."""
    with gzip.open(file) as stream:
        head = stream.read(4)
        if head != bytes((0, 0, 8, axes)):
            raise MissingData(f"mnist: {file.name} is not an IDX file of bytes with {axes} axes")
        lengths = [int.from_bytes(stream.read(4)) for _ in range(axes)]
        values = np.frombuffer(stream.read(), dtype=np.uint8)
    if values.size != int(np.prod(lengths)):
        raise MissingData(f"mnist: {file.name} is truncated: {values.size} bytes of {int(np.prod(lengths))}")
    return values.reshape(lengths[0], -1).astype(np.float64)


PUBLISHED = {
    data.name: data
    for data in (
        Published("power", 6, (1_659_917, 184_435, 204_928), ("power/data.npy",), MAF, _power),
        Published("gas", 8, (852_174, 94_685, 105_206), ("gas/ethylene_CO.npy",), MAF, _gas),
        Published(
            "hepmass",
            21,
            (315_123, 35_013, 174_987),
            ("hepmass/1000_train.csv", "hepmass/1000_test.csv"),
            MAF,
            _hepmass,
        ),
        Published("miniboone", 43, (29_556, 3_284, 3_648), ("miniboone/data.npy",), MAF, _miniboone),
        Published("bsds300", 63, (1_000_000, 50_000, 250_000), ("BSDS300/BSDS300.hdf5",), MAF, _bsds300),
        Published(
            "mnist",
            785,
            (50_000, 10_000, 10_000),
            tuple(
                f"mnist/{part}-ubyte.gz"
                for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
            ),
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            _mnist,
        ),
    )
}
