"""Rows as one Parquet file, for those who analyse them elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
from pyarrow import parquet

from benchmarks.record import Measurement

_TEXT = {"sizes", "metrics"}
"""Tables of whatever a problem has: JSON in a column of text, so that all rows have one schema."""


def write_parquet(rows: Sequence[Measurement], path: Path) -> Path:
    """A column a field of the rows, as they are stored; what is missing is null.

    Numbers that JSON lacks are numbers here, and sizes and metrics JSON.
    """
    columns = {name: [_value(name, getattr(row, name)) for row in rows] for name in Measurement.__dataclass_fields__}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    parquet.write_table(pyarrow.table(columns), temporary)
    temporary.replace(path)
    return path


def _value(name: str, value: object) -> object:
    return json.dumps(value, sort_keys=True) if name in _TEXT and value is not None else value
