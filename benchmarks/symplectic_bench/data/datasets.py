"""What densities are learned of: the published tables and images, read from files, and stand-ins that need none.

POWER, GAS, HEPMASS, MINIBOONE and BSDS300 are those that Papamakarios, Pavlakou and Murray prepared for Masked
Autoregressive Flow for Density Estimation (NeurIPS 2017), prepared here as there: which columns go, what noise is
added, how rows are parted. Their numbers of rows and columns are checked. Without the files a mixture of normal
distributions of the table's dimension takes a table's place, and scikit-learn's digits that of MNIST.
"""

import csv
import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symplectic_bench.data.missing_data import SYNTHETIC, MissingData
from symplectic_bench.data.tables import read_digits, read_table

SPLITS = ("train", "validation", "test")

MAF = "https://zenodo.org/records/1161203"
"""Where the files lie that those authors published, data.tar.gz."""

GAS_PICKLE = "gas/ethylene_CO.pickle"
"""What the release has of GAS. A pickle can run anything, so none is read here: its table is asked for."""

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Published:
    """A data set in files. rows are those of train, validation and test once it is prepared."""

    name: str
    dim: int
    rows: tuple[int, int, int]
    files: tuple[str, ...]
    source: str
    prepare: Callable[[Sequence[Path]], Parts]

    def found(self, data_dir: Path | None) -> bool:
        return data_dir is not None and all((data_dir / file).exists() for file in self.files)

    def read(self, data_dir: Path | None) -> Parts:
        """Raises MissingData where files are missing, or their numbers of rows or columns are others."""
        if data_dir is None or not self.found(data_dir):
            missing = self.files if data_dir is None else [f for f in self.files if not (data_dir / f).exists()]
            where = "--data-dir, which was not given" if data_dir is None else f"--data-dir {data_dir.name}"
            raise MissingData(
                f"{self.name}: no {', '.join(missing)} in {where}. They are published at {self.source}; put them there"
                f" under these names, or train on {stand_in(self.name)}"
            )
        parts = self.prepare([data_dir / file for file in self.files])
        shapes = [part.shape for part in parts]
        expected = [(rows, self.dim) for rows in self.rows]
        if shapes != expected:
            raise MissingData(
                f"{self.name}: {', '.join(self.files)} give train, validation and test sets of shapes {shapes}, but"
                f" those published have {expected}: get the files of {self.source}"
            )
        return parts


def _power(files: Sequence[Path]) -> Parts:
    """Household electric power consumption: the global reactive power and the intensity go, and values are made
    continuous by noise as wide as their last place."""
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
    return _standardised(_tenths(table + np.hstack((power, voltage, meters, time))))


def _gas(files: Sequence[Path]) -> Parts:
    """Readings of gas sensors: of columns that tell the same the last one stays. Standardised over all rows."""
    table = np.load(files[0], allow_pickle=False)
    while True:
        alike = (np.corrcoef(table, rowvar=False) > 0.98).sum(axis=1)
        if (alike == 1).all():
            return _tenths((table - table.mean(axis=0)) / table.std(axis=0, ddof=1))
        table = np.delete(table, int(np.flatnonzero(alike > 1)[0]), axis=1)


def _hepmass(files: Sequence[Path]) -> Parts:
    """Particle collisions: signals alone, without columns whose least value comes again and again."""
    train, test = (_signals(file) for file in files)
    test = test[:, : train.shape[1]]  # one column more is in the test file
    kept = (train == train.min(axis=0)).sum(axis=0) <= 5
    train, test = train[:, kept], test[:, kept]
    mean, spread = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = (train - mean) / spread, (test - mean) / spread
    held = len(train) // 10
    return train[:-held], train[-held:], test


def _signals(file: Path) -> np.ndarray:
    with file.open(newline="") as lines:
        rows = csv.reader(lines)
        width = len(next(rows))
        return np.array([[float(x) for x in row[1:width]] for row in rows if float(row[0]) == 1], dtype=np.float64)


def _miniboone(files: Sequence[Path]) -> Parts:
    """Neutrino events, without the columns of mostly one value: those authors' file has them out already."""
    return _standardised(_tenths(np.load(files[0], allow_pickle=False)))


def _bsds300(files: Sequence[Path]) -> Parts:
    """Patches of 8 x 8 grey pixels without their mean, the last pixel left out."""
    try:
        import h5py  # Imported here because it is an extra, that only these files need.
    except ImportError as why:
        raise MissingData('bsds300: its file is HDF5: python -m pip install ".[data]" gets h5py') from why
    with h5py.File(files[0]) as file:
        train, validation, test = (np.asarray(file[split]) for split in SPLITS)
        return train, validation, test


def _mnist(files: Sequence[Path]) -> Parts:
    """Pixels 0 .. 255 in rows of 784, with the label in one more column. The last 10,000 of train are validation."""
    train, test = (np.hstack([_idx(files[i], 3), _idx(files[i + 1], 1)]) for i in (0, 2))
    return train[:-10_000], train[-10_000:], test


def _idx(file: Path, axes: int) -> np.ndarray:
    """An IDX file of bytes, gzipped: two zeros, the type 8, the number of axes, their lengths, then the bytes."""
    with gzip.open(file) as stream:
        head = stream.read(4)
        if head != bytes((0, 0, 8, axes)):
            raise MissingData(f"mnist: {file.name} is not an IDX file of bytes with {axes} axes")
        lengths = [int.from_bytes(stream.read(4)) for _ in range(axes)]
        values = np.frombuffer(stream.read(), dtype=np.uint8)
    if values.size != int(np.prod(lengths)):
        raise MissingData(f"mnist: {file.name} ends too early: {values.size} bytes of {int(np.prod(lengths))}")
    return values.reshape(lengths[0], -1).astype(np.float64)


def _tenths(table: np.ndarray) -> Parts:
    """The last tenth is for testing, the last tenth of the others for validation."""
    held = len(table) // 10
    rest, test = table[:-held], table[-held:]
    held = len(rest) // 10
    return rest[:-held], rest[-held:], test


def _standardised(parts: Parts) -> Parts:
    """Every column of mean 0 and variance 1 over what is not for testing."""
    seen = np.vstack(parts[:2])
    mean, spread = seen.mean(axis=0), seen.std(axis=0)
    train, validation, test = ((part - mean) / spread for part in parts)
    return train, validation, test


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

SYNTHETIC_ROWS = (10_000, 1_000, 1_000)

MODES = 5


def _mixture(dim: int) -> Parts:
    """Rows of MODES normal distributions, each with correlations of its own; standardised."""
    rng = np.random.default_rng(dim)
    centers = 2 * rng.standard_normal((MODES, dim))
    shapes = rng.standard_normal((MODES, dim, dim)) / np.sqrt(dim)
    rows = sum(SYNTHETIC_ROWS)
    which = rng.integers(MODES, size=rows)
    table = centers[which] + np.einsum("nij,nj->ni", shapes[which], rng.standard_normal((rows, dim)))
    first, second = SYNTHETIC_ROWS[0], SYNTHETIC_ROWS[0] + SYNTHETIC_ROWS[1]
    return _standardised((table[:first], table[first:second], table[second:]))


def _digits() -> Parts:
    """Pixels 0 .. 16 of 8 x 8 images in rows of 64, with the label in one more column, shuffled."""
    pixels, labels = read_digits()
    table = np.hstack([pixels, labels[:, None]])[np.random.default_rng(0).permutation(len(pixels))]
    return _tenths(table)


def _table(name: str) -> Parts:
    """A table that ships inside scikit-learn, shuffled and standardised."""
    table = read_table(name)
    return _standardised(_tenths(table[np.random.default_rng(0).permutation(len(table))]))


LEVELS = {"mnist": 256, "digits": 17}
"""Values that a pixel may have."""


def image_size(rows: np.ndarray) -> int:
    """Pixels along a side of the square images in rows that end with a label."""
    return round((rows.shape[1] - 1) ** 0.5)


EMBEDDED: dict[str, Callable[[], Parts]] = {
    "digits": _digits,
    **{name: lambda name=name: _table(name) for name in ("breast_cancer", "wine")},
    **{f"{SYNTHETIC}{name}": lambda dim=data.dim: _mixture(dim) for name, data in PUBLISHED.items() if name != "mnist"},
}


def names() -> list[str]:
    return [*PUBLISHED, *EMBEDDED]


def stand_in(name: str) -> str:
    """What takes the place of a published data set whose files are not there; itself for any other."""
    if name not in PUBLISHED:
        return name
    return "digits" if name == "mnist" else f"{SYNTHETIC}{name}"


def at_hand(name: str, data_dir: Path | None) -> str:
    """The data set where its files are in data_dir, else its stand-in.

    Raises MissingData where a pickle is there in the place of its table.
    """
    if name not in PUBLISHED or PUBLISHED[name].found(data_dir):
        return name
    if name == "gas" and data_dir is not None and (data_dir / GAS_PICKLE).exists():
        raise MissingData(
            f"gas: {GAS_PICKLE} is a pickle, which can run anything and is never read here. Where you trust it, make"
            f" its table once, in the data folder: numpy.save('gas/ethylene_CO.npy', pandas.read_pickle('{GAS_PICKLE}')"
            ".drop(columns=['Meth', 'Eth', 'Time']).to_numpy())"
        )
    return stand_in(name)


def cache_dataset(name: str, cache_dir: Path, data_dir: Path | None) -> None:
    """Write a data set's parts into cache_dir, unless they are there: all of them or none.

    Raises MissingData where it cannot be had.
    """
    folder = _folder(name, cache_dir)
    if folder.exists():
        return
    if name not in names():
        raise MissingData(f"data must be one of {', '.join(names())}; got {name!r}")
    parts = PUBLISHED[name].read(data_dir) if name in PUBLISHED else EMBEDDED[name]()
    cache_dir.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=cache_dir))
    try:
        for split, part in zip(SPLITS, parts, strict=True):
            np.save(new / f"{split}.npy", part.astype(np.float32), allow_pickle=False)
        os.replace(new, folder)
    except OSError:
        shutil.rmtree(new)
        if not folder.exists():  # another process may have been faster
            raise


def load_split(name: str, split: str, cache_dir: Path | None) -> np.ndarray:
    """A part that cache_dataset wrote, (rows, columns), float32, read from the disk as it is used."""
    if cache_dir is None or not _folder(name, cache_dir).exists():
        raise MissingData(f"{name} is not cached: call cache_dataset({name!r}, ...) first")
    return np.load(_folder(name, cache_dir) / f"{split}.npy", mmap_mode="r", allow_pickle=False)


def _folder(name: str, cache_dir: Path) -> Path:
    """Of what this file makes of it: another way to prepare it is another folder."""
    return cache_dir / f"dataset-{name}-{_SOURCE}"


_SOURCE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
