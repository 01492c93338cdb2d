import ast
import sys
from pathlib import Path

import pytest

from symplectic_bench.rows import record
from symplectic_bench.spec import cell
from tests.symplectic_bench.sample_rows import a_cell


def test_an_id_is_the_same_in_every_process_and_version():
    # Committed rows are found by it. A change of SCHEMA changes it, and is the only thing that may.
    assert a_cell().id == "c4b65da16d9b3aa3"


def test_the_suite_that_asks_does_not_change_the_measurement():
    assert a_cell(suite="small").id == a_cell(suite="large").id


@pytest.mark.parametrize(
    "change",
    [
        {"problem": "flow"},
        {"sizes": (("width", 8),)},
        {"batch": 2},
        {"method": "tsit5"},
        {"rtol": 1e-3},
        {"rtol": None, "atol": None, "steps": 10},
        {"gradient": "aca"},
        {"contender": "torchdiffeq"},
        {"dtype": "float32"},
        {"device": "cuda"},
        {"threads": 2},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_else_does(change):
    assert a_cell(**change).id != a_cell().id


def test_a_group_is_what_differs_only_in_contender_or_gradient():
    assert a_cell(contender="torchdiffeq", gradient="continuous").group_id == a_cell().group_id
    assert a_cell(rtol=1e-3).group_id != a_cell().group_id


def test_a_problem_is_shared_by_methods_and_tolerances():
    assert a_cell(method="tsit5", rtol=1e-3, gradient="aca").problem_id == a_cell().problem_id
    assert a_cell(seed=1).problem_id != a_cell().problem_id


@pytest.mark.parametrize("accuracy", [{"steps": 5}, {"rtol": None}, {"rtol": None, "atol": None}])
def test_a_cell_has_tolerances_or_steps(accuracy):
    with pytest.raises(ValueError, match="rtol and atol, or steps"):
        a_cell(**accuracy)


def test_sizes_are_sorted_since_they_are_hashed():
    with pytest.raises(ValueError, match="sorted"):
        a_cell(sizes=(("width", 8), ("layers", 2)))


def test_a_label_names_what_a_group_shares():
    fixed = a_cell(sizes=(), rtol=None, atol=None, steps=20, method="rk4", device="cuda")
    assert fixed.group_label == "mlp() batch 128, rk4 20 steps, float64 on cuda"


@pytest.mark.parametrize("module", [cell, record])
def test_what_every_measuring_process_imports_is_the_standard_library(module):
    assert module.__file__ is not None
    imported = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported.add(node.module.split(".")[0])
    assert imported - {"symplectic_bench"} <= sys.stdlib_module_names


def test_cells_of_a_group_differ_in_contender_or_gradient_only():
    cells = [
        a_cell(gradient="aca"),
        a_cell(seed=1),
        a_cell(contender="torchdiffeq", gradient="backprop"),
        a_cell(seed=1, gradient="stages"),
    ]
    assert cell.group_cells(cells) == [[cells[0], cells[2]], [cells[1], cells[3]]]
