"""Data sets: published ones, prepared as their authors did, and the stand-ins for missing ones."""

import gzip
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest

from symplectic_bench.data.datasets import available_dataset, cache_dataset, load_split
from symplectic_bench.data.errors import MissingData
from symplectic_bench.data.published import PUBLISHED
from symplectic_bench.data.splits import SPLITS
from symplectic_bench.data.stand_ins import SYNTHETIC_ROWS

ROUNDING = 1e-5  # of float32


def write(folder, name, array):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def idx(folder, name, array):
    path = folder / "mnist" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4) for n in array.shape)
    with gzip.open(path, "wb") as stream:
        stream.write(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def small(monkeypatch):
    """Return a function that changes the number of rows expected of a published data set."""

    def shrink(name, rows):
        monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], rows=rows))

    return shrink


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "mnist"])
def test_a_stand_in_has_the_dimension_of_its_table_and_is_standardised(name, tmp_path):
    stand_in = PUBLISHED[name].stand_in
    cache_dataset(stand_in, tmp_path, None)
    parts = [load_split(stand_in, split, tmp_path) for split in SPLITS]
    assert [part.shape for part in parts] == [(rows, PUBLISHED[name].dim) for rows in SYNTHETIC_ROWS]
    seen = np.vstack(parts[:2])
    assert np.abs(seen.mean(axis=0)).max() < ROUNDING and np.abs(seen.std(axis=0) - 1).max() < ROUNDING


def test_digits_stand_in_for_mnist_with_their_labels(tmp_path):
    assert PUBLISHED["mnist"].stand_in == "digits"
    cache_dataset("digits", tmp_path, None)
    parts = [load_split("digits", split, tmp_path) for split in SPLITS]
    assert sum(map(len, parts)) == 1797 and parts[0].shape[1] == 65
    assert set(np.unique(parts[0][:, -1])) == set(range(10)) and parts[0][:, :-1].max() == 16


def test_power_is_prepared_as_published(tmp_path, small):
    small("power", (81, 9, 10))
    table = np.random.default_rng(0).normal(size=(100, 8))
    write(tmp_path, "power/data.npy", table)
    train, validation, test = PUBLISHED["power"].read(tmp_path)
    rng = np.random.RandomState(42)
    rng.shuffle(table)
    noise = {"voltage": 0.01 * rng.rand(100), "power": 0.001 * rng.rand(100), "meters": rng.rand(100, 3)}
    columns = [table[:, 0] + noise["power"], table[:, 2] + noise["voltage"], *(table[:, 4:7] + noise["meters"]).T]
    expected = np.column_stack([*columns, table[:, 7]])
    seen = expected[:90]
    expected = (expected - seen.mean(axis=0)) / seen.std(axis=0)
    np.testing.assert_allclose(np.vstack([train, validation, test]), expected, atol=1e-12)


def test_gas_keeps_one_of_several_correlated_columns(tmp_path, small):
    small("gas", (81, 9, 10))
    own = np.random.default_rng(0).normal(size=(100, 8))
    write(tmp_path, "gas/ethylene_CO.npy", np.column_stack([own, 2 * own[:, 3] + 1]))
    parts = PUBLISHED["gas"].read(tmp_path)
    assert [part.shape for part in parts] == [(81, 8), (9, 8), (10, 8)]


def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    (tmp_path / "gas").mkdir()
    (tmp_path / "gas/ethylene_CO.pickle").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(MissingData, match=r"pickle.*never read.*numpy\.save"):
        available_dataset("gas", tmp_path)


def test_hepmass_keeps_signals_and_columns_of_many_distinct_values(tmp_path, small, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "hepmass", replace(PUBLISHED["hepmass"], dim=2, rows=(18, 2, 10)))
    rng = np.random.default_rng(0)
    for name, rows in (("1000_train", 40), ("1000_test", 20)):
        columns = [np.arange(rows) % 2, rng.normal(size=rows), np.zeros(rows), rng.normal(size=rows)]
        columns += [np.ones(rows)] if name == "1000_test" else []
        lines = [",".join(f"{x:g}" for x in row) for row in np.column_stack(columns)]
        (tmp_path / "hepmass").mkdir(exist_ok=True)
        header = ",".join(f"c{i}" for i in range(len(columns)))
        (tmp_path / f"hepmass/{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    parts = PUBLISHED["hepmass"].read(tmp_path)
    assert [part.shape for part in parts] == [(18, 2), (2, 2), (10, 2)]


def test_mnist_is_read_from_idx_files(tmp_path, small):
    small("mnist", (5, 10_000, 3))
    rng = np.random.default_rng(0)
    for part, rows in (("train", 10_005), ("t10k", 3)):
        idx(tmp_path, f"{part}-images-idx3-ubyte.gz", rng.integers(256, size=(rows, 28, 28)))
        idx(tmp_path, f"{part}-labels-idx1-ubyte.gz", np.arange(rows) % 10)
    train, _, test = PUBLISHED["mnist"].read(tmp_path)
    assert train.shape == (5, 785) and test[:, -1].tolist() == [0, 1, 2]


def test_an_idx_file_with_other_axes_is_refused(tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        idx(tmp_path, f"{name}-ubyte.gz", np.zeros((2, 3), dtype=np.uint8))
    with pytest.raises(MissingData, match="not an IDX file of bytes with 3 axes"):
        PUBLISHED["mnist"].read(tmp_path)


def test_a_truncated_idx_file_is_refused(tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        idx(tmp_path, f"{name}-ubyte.gz", np.zeros((2, 3, 3) if "images" in name else 2, dtype=np.uint8))
    file = tmp_path / "mnist/train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-1]))
    with pytest.raises(MissingData, match="is truncated: 17 bytes of 18"):
        PUBLISHED["mnist"].read(tmp_path)


@pytest.mark.parametrize("shape", [(100, 43), (36_488, 42)])
def test_unexpected_numbers_of_rows_or_columns_are_refused(shape, tmp_path):
    write(tmp_path, "miniboone/data.npy", np.random.default_rng(0).normal(size=shape))
    with pytest.raises(MissingData, match=r"miniboone.*shapes.*but the published ones have.*29556, 43"):
        PUBLISHED["miniboone"].read(tmp_path)


def test_the_error_for_missing_files_names_them_and_their_source(tmp_path):
    with pytest.raises(MissingData, match=r"miniboone/data.npy.*zenodo.*synthetic-miniboone"):
        PUBLISHED["miniboone"].read(None)
    assert available_dataset("miniboone", tmp_path) == "synthetic-miniboone"
    write(tmp_path, "miniboone/data.npy", np.zeros((2, 2)))
    assert available_dataset("miniboone", tmp_path) == "miniboone"


def test_nothing_is_cached_for_unavailable_data(tmp_path):
    with pytest.raises(MissingData, match="not cached"):
        load_split("digits", "train", tmp_path)
    with pytest.raises(MissingData, match="data must be one of"):
        cache_dataset("cifar", tmp_path, None)
    with pytest.raises(MissingData):
        cache_dataset("power", tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_bsds300_is_read_unchanged(tmp_path, small):
    small("bsds300", (4, 2, 3))
    (tmp_path / "BSDS300").mkdir()
    with h5py.File(tmp_path / "BSDS300/BSDS300.hdf5", "w") as file:
        for split, rows in (("train", 4), ("validation", 2), ("test", 3)):
            file[split] = np.full((rows, 63), float(rows))
    parts = PUBLISHED["bsds300"].read(tmp_path)
    assert [float(part[0, 0]) for part in parts] == [4, 2, 3]


@pytest.mark.parametrize(("name", "shape"), [("breast_cancer", (569, 30)), ("wine", (178, 13))])
def test_tables_of_scikit_learn_need_no_files(tmp_path, name, shape):
    cache_dataset(name, tmp_path, None)
    parts = [load_split(name, split, tmp_path) for split in SPLITS]
    assert (sum(map(len, parts)), parts[0].shape[1]) == shape
    seen = np.vstack(parts[:2])
    assert np.abs(seen.mean(axis=0)).max() < ROUNDING and np.abs(seen.std(axis=0) - 1).max() < ROUNDING
