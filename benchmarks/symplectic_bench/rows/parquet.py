"""Rows as one Parquet file, for analysis with other tools."""

import json
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from symplectic_bench.files.atomic import replacing
from symplectic_bench.rows.record import Measurement

_TEXT = {"sizes", "metrics"}
"""Fields stored as JSON text: their keys differ between problems, and all rows must have one schema."""

_KINDS = {"list[float]": pyarrow.list_(pyarrow.float64()), "list[int]": pyarrow.list_(pyarrow.int64())}
_KINDS |= {"bool": pyarrow.bool_(), "int": pyarrow.int64(), "float": pyarrow.float64()}


def _kind(field: Field[Any]) -> pyarrow.DataType:
    written = str(getattr(field.type, "__name__", field.type)).split(" | ")[0]
    return pyarrow.string() if field.name in _TEXT else _KINDS.get(written, pyarrow.string())


SCHEMA = pyarrow.schema([(field.name, _kind(field)) for field in fields(Measurement)])
"""The same for every suite, so that files can be concatenated."""


def write_parquet(rows: Sequence[Measurement], path: Path) -> Path:
    """Write one column per field of a row, and return the path. Missing values are null.

    NaN and infinities, strings in the JSON rows, are numbers here; sizes and metrics are JSON text.
    """
    columns = {field.name: [_value(field, getattr(row, field.name)) for row in rows] for field in SCHEMA}
    with replacing(path) as part:
        parquet.write_table(pyarrow.table(columns, schema=SCHEMA), part)
    return path


def _value(field: pyarrow.Field, value: Any) -> object:
    if field.type == pyarrow.float64():
        return None if value is None else float(value)  # pyarrow refuses integers that a float cannot hold exactly
    if field.type == _KINDS["list[float]"]:
        return None if value is None else [float(one) for one in value]
    return json.dumps(value, sort_keys=True) if field.name in _TEXT and value is not None else value
