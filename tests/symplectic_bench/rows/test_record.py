import json
import math

import pytest

from symplectic_bench.rows.record import Measurement, UnreadableRow
from symplectic_bench.spec.cell import SCHEMA
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row


def written_and_read(row):
    return Measurement.from_json(json.loads(json.dumps(row.to_json(), allow_nan=False)))


def test_a_row_survives_a_round_trip():
    assert written_and_read(a_row()) == a_row()


def test_a_failure_has_a_status_and_a_reason_and_no_numbers():
    row = Measurement.for_cell(a_cell(), status=Status.TIMEOUT, reason="no result within 60 s")
    assert written_and_read(row) == row
    assert row.total_s is None


def test_non_finite_numbers_survive_a_round_trip():
    row = written_and_read(a_row(error_true=math.nan, loss=math.inf, forward_samples_s=[1.0, -math.inf]))
    assert row.error_true is not None and math.isnan(row.error_true)
    assert row.loss == math.inf
    assert row.forward_samples_s == [1.0, -math.inf]


def test_a_reason_that_reads_like_a_number_stays_text():
    assert written_and_read(a_row(reason="NaN")).reason == "NaN"


def test_a_row_knows_its_cell():
    assert a_row().cell == a_cell()


def test_rows_from_before_a_field_existed_are_read():
    old = a_row().to_json()
    del old["forward_error"]
    assert Measurement.from_json(old).forward_error is None


def test_rows_of_a_newer_version_are_refused_by_name():
    with pytest.raises(UnreadableRow, match=r"schema 99 .*\['colour'\].*--fresh"):
        Measurement.from_json(a_row().to_json() | {"colour": "red", "schema": 99})
    with pytest.raises(UnreadableRow, match="newer version"):
        Measurement.from_json(a_row().to_json() | {"schema": SCHEMA + 1})


@pytest.mark.parametrize("broken", [{}, {"status": "fine"}, {"status": "ok"}])
def test_anything_but_a_row_is_refused(broken):
    with pytest.raises(UnreadableRow, match="not a row"):
        Measurement.from_json(broken)
