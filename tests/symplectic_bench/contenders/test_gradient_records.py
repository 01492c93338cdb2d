"""The suite's records of gradients and contenders."""

import inspect
import subprocess
import sys
from dataclasses import replace

import pytest

from symplectic_adjoint import CompilerNotFound, Revolve, UnsupportedCombination, solve
from symplectic_bench.contenders.contender_records import CONTENDER_RECORDS
from symplectic_bench.contenders.gradient_records import (
    GRADIENT_RECORDS,
    GradientRecord,
    Symbols,
    gradient_place,
    gradient_record,
    series_name,
)
from symplectic_bench.contenders.library_gradients import NAMES, STRATEGIES, library_gradient
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.problems import PROBLEMS
from tests.symplectic_bench.sample_cells import make_cell


def test_every_gradient_of_every_contender_has_a_record():
    gradients = {gradient for contender in CONTENDERS.values() for gradient in contender.gradients}
    assert {gradient.removesuffix("-N") for gradient in gradients} == set(GRADIENT_RECORDS)


def test_contenders_are_registered_under_their_own_names():
    assert {name: contender.name for name, contender in CONTENDERS.items()} == {
        name: name for name in CONTENDER_RECORDS
    }


def test_the_setting_of_a_dial_has_the_dials_record():
    assert gradient_record("revolve-8") is gradient_record("revolve") is GRADIENT_RECORDS["revolve"]
    assert series_name("revolve-8") == "revolve-N" and series_name("revolve") == "revolve"
    assert gradient_place("revolve-4") < gradient_place("revolve-16")


def test_a_gradient_without_a_record_has_defaults_and_the_last_place():
    assert gradient_record("unheard-of") == GradientRecord("unheard-of")
    assert gradient_record("unheard-of").memory is None
    assert gradient_place("unheard-of") > max(map(gradient_place, GRADIENT_RECORDS))


def test_revolve_keeps_what_the_librarys_preset_keeps():
    assert GRADIENT_RECORDS["revolve"].default_number == Revolve().checkpoints


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_exact_for_the_method_where_the_library_is(name):
    assert gradient_record(name.removesuffix("-N")).exact_for_method == STRATEGIES[name].exact_for_method


CAN_CAPTURE = "capture" in inspect.signature(solve).parameters


def no_compiler():
    raise CompilerNotFound


@pytest.mark.parametrize("name", NAMES)
def test_a_contender_declines_exactly_what_the_library_refuses(name, monkeypatch):
    monkeypatch.setattr("symplectic_adjoint.arguments.require_compiler", no_compiler)  # so that nothing is compiled
    problem, gradient = PROBLEMS["linear"].build({}, 2, "float64"), name.replace("-N", "-100")
    method = None if gradient == "mali" else "dopri5"
    cell = make_cell(problem="linear", gradient=gradient)
    for contender in ("ours-compiled", "ours-float64", *(["ours-captured"] if CAN_CAPTURE else [])):
        keyword = CONTENDERS[contender].keywords
        error = None
        try:
            solve(problem.func, problem.y0, problem.t, gradient=library_gradient(gradient), method=method, **keyword)
        except (CompilerNotFound, UnsupportedCombination) as raised:
            error = raised
        declined = CONTENDERS[contender].decline(replace(cell, contender=contender)) is not None
        assert declined == isinstance(error, UnsupportedCombination), contender


def test_the_paper_orders_memory_by_the_formulas():
    # Table 1 in bytes, without the small terms: V = A and P = 0.
    symbols = Symbols(N=20, s=6, D=10, A=100, V=100)
    expected = {"symplectic": (20 + 6) * 10 + 100, "aca": 20 * 10 + 6 * 100, "baseline": 10 + 20 * 6 * 100}
    assert {name: GRADIENT_RECORDS[name].memory(symbols) for name in expected} == expected


def test_records_need_no_torch():
    modules = "symplectic_bench.contenders.gradient_records, symplectic_bench.contenders.contender_records"
    program = f"import sys, {modules}, symplectic_bench.report.panels; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
