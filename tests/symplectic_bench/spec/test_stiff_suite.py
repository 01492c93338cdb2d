"""The suite of stiff problems: its methods are the library's, and its cells are those that the methods can do."""

import re

import pytest

from symplectic_adjoint import METHODS
from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.contenders.reasons import takes_pair
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.run.sweep import cells_of_suite, make_plan
from symplectic_bench.spec.cell import group_cells
from symplectic_bench.spec.suite import SUITES, Scale, load_suite

SUITE = load_suite("stiff")
SCALES = [Scale.SMOKE, Scale.CPU]
NEW = sorted({m for scale in SCALES for block in SUITE.at_scale(scale).block for m in block.method} - {"dopri5"})

every_scale = pytest.mark.parametrize("scale", SCALES)


def test_it_has_problems_of_every_kind_and_methods_of_every_class():
    problems = {problem["name"] for block in SUITE.block for problem in block.problem}
    stiff = {"van_der_pol", "robertson", "hires", "stiff_spiral", "pharmacokinetics", "allen_cahn", "brusselator"}
    assert problems == {*stiff, "brusselator_2d"} and problems <= set(PROBLEMS)
    assert {"dopri5", "kvaerno3", "kvaerno5", "kencarp4", "trbdf2", "implicit_euler", "crank_nicolson"} <= {
        method for block in SUITE.block for method in block.method
    }


def test_fields_in_one_part_are_given_to_no_pair():
    """Pairs are the methods that begin with ars or kencarp, until the library has them and says so itself."""
    for scale in SCALES:
        for block in SUITE.at_scale(scale).block:
            if any(re.match("ars|kencarp", method) for method in block.method):
                assert all(PROBLEMS[problem["name"]].split for problem in block.problem)


@every_scale
def test_it_expands_within_its_limits(scale):
    suite = SUITE.at_scale(scale)
    if missing := [method for method in NEW if method not in METHODS]:
        pytest.skip(f"the library has no method {missing[0]!r}")
    cells = cells_of_suite(suite)
    assert len(cells) <= suite.max_cells and suite.budget_s <= 1200
    assert {cell.method for cell in cells if takes_pair(cell.method)} <= {"ars222", "kencarp4"}
    assert {cell.method for cell in cells} <= set(METHODS)


@every_scale
def test_every_implicit_solve_of_a_peer_stands_beside_one_of_ours(scale):
    groups = group_cells(cells_of_suite(SUITE.at_scale(scale)))
    others = [group for group in groups if any(cell.contender != "ours" for cell in group)]
    assert others and all("ours symplectic" in {cell.name for cell in group} for group in others)


def test_a_thousand_patients_are_timed_beside_diffrax_in_rounds_enough_for_an_interval():
    plan = make_plan("stiff", RunOptions(only=["batch=1000"]))
    assert {cell.rtol for cell in plan.cells if cell.contender == "diffrax"} == {1e-3, 1e-6}
    assert (plan.repeats, plan.repeats_compared) == (2, FEWEST_ROUNDS)
    fewer = make_plan("stiff", RunOptions(repeats=3))
    assert (fewer.repeats, fewer.repeats_compared) == (3, 3)


def test_no_code_of_the_suite_names_the_methods_of_the_library():
    """Only adapters and probes do, which translate them to those of their packages, and an example that takes one."""
    folder = SUITES.parent
    naming = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if any(f'"{method}"' in path.read_text() for method in NEW)
    }
    adapters = {"contenders/diffrax.py", "contenders/pnode.py", "features/torch_libraries.py"}
    assert naming <= {*adapters, "examples/stiff_fit.py"}
