"""The targets of a captured solve, from made-up measurements."""

import json

import pytest

from symplectic_bench.analysis.card_targets import MIB, TARGETS, verdicts
from symplectic_bench.report.card_tables import as_json, measurements_table, targets_table
from symplectic_bench.report.typesetting import to_markdown
from symplectic_bench.run.card_rounds import Result
from symplectic_bench.run.card_rows import CAPTURED, DIFFRAX, EAGER, ROWS, TORCHDIFFEQ

TIMES = {CAPTURED: 4e-3, EAGER: 46e-3, TORCHDIFFEQ: 50e-3, DIFFRAX: 10e-3, "captured bare calls": 3.8e-3}


@pytest.fixture
def rows():
    rows = {}
    for row in ROWS:
        rows[row.name] = {
            name: Result(row.name, name, one, samples_s=[TIMES.get(name, 30e-3) * k for k in (1.0, 1.1, 0.9)])
            for name, one in row.entrants().items()
        }
        for one in rows[row.name].values():
            one.measured = {"first_s": 0.2, "peak_tensor_bytes": 30 * MIB, "parameter_bytes": MIB, "f_calls": 800}
    return rows


def test_every_target_has_a_row_and_each_row_a_target(rows):
    found = {(one.target.row, one.target.name): one for one in verdicts(rows)}
    assert len(found) == len(TARGETS) and {row for row, _ in found} == set(rows)
    assert found["small", "time over diffrax, jitted"].value == pytest.approx(0.4)
    assert found["small", "time over diffrax, jitted"].met and found["fix400", FLOOR].met is not None
    assert found["fix50", FLOOR].value == pytest.approx(4 / 3.8) and found["fix50", FLOOR].met
    assert found["identity", "microseconds per f call"].value == pytest.approx(4e3 / 800)
    assert found["small", "seconds to set up"].value == pytest.approx(0.196)
    assert found["big", "peak of reserved bytes, of what is allowed"].met is None  # it was not measured


FLOOR = "time over the captured bare calls"


@pytest.mark.parametrize(
    ("captured", "eager", "met"), [(71, 30, True), (72, 30, False), (111, 100, True), (112, 100, False)]
)
def test_memory_may_be_40_mib_more_or_a_tenth_of_a_large_peak_without_one_theta(rows, captured, eager, met):
    for name, mib in ((CAPTURED, captured), (EAGER, eager)):
        rows["big"][name].measured["peak_tensor_bytes"] = mib * MIB
    (found,) = [one for one in verdicts(rows) if one.target.name.startswith("peak of live")]
    assert found.met is met


def test_what_failed_is_missing_from_the_lines_and_explained_below(rows):
    captured, diffrax = rows["small"][CAPTURED], rows["small"][DIFFRAX]
    captured.samples_s, captured.status, captured.reason = [], "error", "it broke"
    diffrax.samples_s, diffrax.status, diffrax.reason = [], "skipped", "not installed"
    (small,) = [s for s in measurements_table({"small": rows["small"]}, "here.").sections]
    assert {CAPTURED, DIFFRAX}.isdisjoint(line[0] for line in small.lines)
    assert f"{CAPTURED}: error: it broke" in small.notes and f"{DIFFRAX}: skipped: not installed" in small.notes
    assert next(verdicts(rows)).met is None


def test_the_tables_and_the_json_hold_everything(rows):
    found = list(verdicts(rows))
    text = to_markdown(measurements_table(rows, "A card.")) + to_markdown(targets_table(found, "A card."))
    assert r"0.08 \[0.08, 0.08\]" in text and "diffrax backprop (bosh3)" in text and "| met |" in text
    plain = json.loads(json.dumps(as_json(rows, found), allow_nan=False))
    assert len(plain["rows"]) == sum(map(len, rows.values())) and len(plain["targets"]) == len(TARGETS)
    assert plain["rows"][0]["samples_s"] == rows["small"][CAPTURED].samples_s
