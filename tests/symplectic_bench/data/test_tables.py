"""Tables of real data: standardised, cached once, and read from the cache only."""

import numpy as np
import pytest

from symplectic_bench.data.errors import MissingData
from symplectic_bench.data.scikit_learn import TABLES
from symplectic_bench.data.tables import cache_table, load_table, table_file


def test_real_data_is_cached_standardised(tmp_path):
    shapes = {}
    for name in TABLES:
        cache_table(name, tmp_path)
        rows = load_table(name, tmp_path)
        shapes[name] = tuple(rows.shape)
        # Sums over up to 1797 rows, in float64.
        assert rows.mean(dim=0).abs().max() < 1e-12
        assert (rows.var(dim=0, correction=0) - 1).abs().max() < 1e-12
    assert shapes == {"digits": (1797, 64), "breast_cancer": (569, 30), "wine": (178, 13)}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npz"] * 3


def test_a_cached_table_is_not_computed_again(tmp_path):
    np.savez(table_file("wine", tmp_path), rows=np.ones((1, 1)))
    cache_table("wine", tmp_path)
    assert load_table("wine", tmp_path).shape == (1, 1)


def test_the_error_for_an_uncached_table_says_what_to_do(tmp_path):
    with pytest.raises(MissingData, match=r"call cache_table\('wine', cache_dir\) first"):
        load_table("wine", tmp_path)


def test_the_error_for_an_unknown_table_names_it_and_the_known_ones(tmp_path):
    for use in (load_table, cache_table):
        with pytest.raises(MissingData, match="digits, breast_cancer, wine; got 'iris'"):
            use("iris", tmp_path)
