"""Rows as Parquet: every field is a column, of the same type whatever was measured."""

import json
import math
from dataclasses import fields, replace

from pyarrow import parquet

from symplectic_bench.rows.parquet import SCHEMA, write_parquet
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row, first_look


def test_every_field_of_every_row_is_a_column(tmp_path):
    rows = first_look()
    table = parquet.read_table(write_parquet(rows, tmp_path / "rows.parquet"))
    assert table.schema.equals(SCHEMA) and table.num_rows == len(rows)
    assert table.column_names == [f.name for f in fields(Measurement)]
    for row, found in zip(rows, table.to_pylist(), strict=True):
        for name, value in found.items():
            expected = getattr(row, name)
            assert (json.loads(value) if name == "sizes" else value) == expected, name


def test_non_finite_and_missing_values_are_kept_apart(tmp_path):
    rows = [
        a_row(error_true=math.inf, metrics={"nll": 1.5}, losses=[1.0, 2.0]),
        Measurement.for_cell(a_cell(), status=Status.OOM, reason="killed"),
    ]
    first, second = parquet.read_table(write_parquet(rows, tmp_path / "rows.parquet")).to_pylist()
    assert first["error_true"] == math.inf and json.loads(first["metrics"]) == {"nll": 1.5}
    assert first["losses"] == [1.0, 2.0]
    assert second["total_s"] is None and second["metrics"] is None and second["status"] == "oom"


def test_files_of_different_measurements_have_one_schema(tmp_path):
    errors = [replace(a_row(), total_s=None, forward_samples_s=None, error_true_reason="none")]
    one = parquet.read_table(write_parquet(errors, tmp_path / "one.parquet"))
    other = parquet.read_table(write_parquet([a_row()], tmp_path / "other.parquet"))
    assert one.schema.equals(other.schema)


def test_integers_among_floats_are_numbers_too(tmp_path):
    """JSON does not tell 3.0 from 3, and rows may hold any integer of 64 bits."""
    row = a_row(total_s=2**63 - 1, losses=[1, 2**62], f_calls_forward=2**63 - 1)
    (found,) = parquet.read_table(write_parquet([row], tmp_path / "rows.parquet")).to_pylist()
    assert (found["total_s"], found["losses"]) == (float(2**63), [1.0, 2.0**62])
    assert found["f_calls_forward"] == 2**63 - 1
