"""The data sets of tasks, by name: published ones whose files are available, and stand-ins, which need no files.

Each is prepared once and cached in float32, one .npy file per split.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from symplectic_bench.data.errors import MissingData
from symplectic_bench.data.published import GAS_PICKLE, PUBLISHED
from symplectic_bench.data.splits import SPLITS
from symplectic_bench.data.stand_ins import STAND_INS

LEVELS = {"mnist": 256, "digits": 17}
"""The number of values that a pixel can take, for each image data set."""

PREPARING_MODULES = ("published", "scikit_learn", "splits", "stand_ins")
"""The modules of this folder that determine what is cached."""


def image_size(rows: np.ndarray) -> int:
    """Return the side, in pixels, of square images stored in rows that end with a label."""
    return round((rows.shape[1] - 1) ** 0.5)


def available_dataset(name: str, data_dir: Path | None) -> str:
    """Return `name` if the data set needs no files or they are in data_dir, else the name of its stand-in.

    Raise MissingData if data_dir has a pickle where a table is expected.
    """
    if name not in PUBLISHED or PUBLISHED[name].is_available(data_dir):
        return name
    if name == "gas" and data_dir is not None and (data_dir / GAS_PICKLE).exists():
        raise MissingData(
            f"gas: {GAS_PICKLE} is a pickle, which can run arbitrary code and is never read here. If you trust it,"
            " convert it once, in the data folder:"
            f" numpy.save('gas/ethylene_CO.npy', pandas.read_pickle('{GAS_PICKLE}')"
            ".drop(columns=['Meth', 'Eth', 'Time']).to_numpy())"
        )
    return PUBLISHED[name].stand_in


def cache_dataset(name: str, cache_dir: Path, data_dir: Path | None) -> None:
    """Write all splits of a data set into cache_dir, or none if one fails. Do nothing if they are there.

    Raise MissingData if there is no such data set or its files are missing or wrong.
    """
    folder = _folder(name, cache_dir)
    if folder.exists():
        return
    if name not in PUBLISHED and name not in STAND_INS:
        raise MissingData(f"data must be one of {', '.join([*PUBLISHED, *STAND_INS])}; got {name!r}")
    parts = PUBLISHED[name].read(data_dir) if name in PUBLISHED else STAND_INS[name]()
    cache_dir.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=cache_dir))
    try:
        for split, part in zip(SPLITS, parts, strict=True):
            np.save(new / f"{split}.npy", part.astype(np.float32), allow_pickle=False)
        os.replace(new, folder)
    except OSError:
        shutil.rmtree(new)
        if not folder.exists():  # another process may have written it first
            raise


def load_split(name: str, split: str, cache_dir: Path | None) -> np.ndarray:
    """Return one cached split, (rows, columns) in float32, memory-mapped. Raise MissingData if it is not cached."""
    if cache_dir is None or not _folder(name, cache_dir).exists():
        raise MissingData(f"{name} is not cached: call cache_dataset({name!r}, ...) first")
    return np.load(_folder(name, cache_dir) / f"{split}.npy", mmap_mode="r", allow_pickle=False)


def _folder(name: str, cache_dir: Path) -> Path:
    """Return the cache folder of a data set as prepared by the present code; other code uses another folder."""
    return cache_dir / f"dataset-{name}-{_CODE_DIGEST}"


_CODE_DIGEST = hashlib.sha256(
    b"".join(Path(__file__).with_name(f"{module}.py").read_bytes() for module in PREPARING_MODULES)
).hexdigest()[:8]
