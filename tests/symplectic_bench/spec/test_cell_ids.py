"""The ids of what was measured outlive every renaming: a row that is read later is still the same cell's."""

import json

import pytest

from symplectic_bench.rows.store import read_rows
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.suite import Scale, load_suite
from tests.clone import ROOT

ROWS = sorted((ROOT / "results").glob("**/rows.jsonl"))
BASELINES = sorted(path for path in (ROOT / "results/baseline").glob("*-smoke.jsonl"))


def test_there_is_something_to_recompute():
    assert len(ROWS) >= 8 and BASELINES


@pytest.mark.parametrize("file", ROWS, ids=lambda path: str(path.relative_to(ROOT / "results").parent))
def test_every_committed_row_has_the_id_of_its_cell(file):
    known = read_rows(file)
    assert known.rows and not known.warnings
    for row in known.rows:
        assert (row.cell.id, row.cell.group_id) == (row.cell_id, row.group_id)


@pytest.mark.parametrize("file", BASELINES, ids=lambda path: path.stem)
def test_every_cell_of_a_baseline_is_one_of_its_suite_s(file):
    _, *cells = map(json.loads, file.read_text().splitlines())
    suite = load_suite(file.stem.removesuffix("-smoke")).at_scale(Scale.SMOKE)
    assert {cell["cell_id"] for cell in cells} == {cell.id for cell in expand(suite, load_vocabulary())}
