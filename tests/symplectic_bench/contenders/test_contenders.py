"""Each contender against ours: the same problem and method, and the nearest gradient that it has.

Continuous integration installs neither torchode nor diffrax nor the paper's code, so it skips their tests.
"""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest

from symplectic_adjoint import METHODS, StiffnessWarning, solve
from symplectic_bench.contenders.library_gradients import STRATEGIES
from symplectic_bench.contenders.paper import ADAPTIVE as PAPER_ADAPTIVE
from symplectic_bench.contenders.paper import FIXED as PAPER_FIXED
from symplectic_bench.contenders.rampde import METHODS as RAMPDE_METHODS
from symplectic_bench.contenders.registry import CONTENDERS, decline, missing
from symplectic_bench.contenders.torchode import METHOD_CLASSES as TORCHODE_METHODS
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.measure.wall_time import measure_wall_time
from symplectic_bench.problems import PROBLEMS, build
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Suite
from tests.symplectic_bench.contenders.against_ours import (
    ROUNDING,
    distance,
    installed,
    observed,
)
from tests.symplectic_bench.sample_cells import FIXED, make_cell
from tests.symplectic_bench.work import measured

RIVALS = [(name, gradient) for name in ("torchdiffeq", "paper", "torchode") for gradient in CONTENDERS[name].gradients]


@pytest.mark.parametrize(("contender", "their_gradient"), RIVALS)
def test_a_rivals_gradient_agrees_with_ours_within_the_tolerance(contender, their_gradient, tmp_path):
    installed(contender)
    cell = make_cell(contender=contender, gradient=their_gradient, rtol=1e-7, atol=1e-7)
    # Other steps, each with an error of about the tolerance; an adjoint solve adds that of its own steps.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 1e-4


@pytest.mark.parametrize(("problem", "warned"), [("linear", []), ("mine:make", [StiffnessWarning])])
def test_only_a_users_own_problem_is_called_stiff(problem, warned, tmp_path):
    linear = make_cell(problem="linear")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CONTENDERS["ours"].gradient(build(linear, tmp_path), replace(linear, problem=problem))
        warnings.warn("stiff", StiffnessWarning, stacklevel=1)
    assert [one.category for one in caught] == warned


STEPPED = [
    *(("paper", name) for name in PAPER_FIXED),
    *(("torchode", name) for name in TORCHODE_METHODS if name != "adaptive_heun"),
    *(("rampde", name) for name in RAMPDE_METHODS),
]


@pytest.mark.parametrize("contender", ["ours", "torchdiffeq"])
@pytest.mark.parametrize("accuracy", [{"rtol": 1e-7, "atol": 1e-7}, {**FIXED, "method": "rk38", "steps": 8}])
def test_the_steps_of_a_continuous_adjoints_second_solve_are_reported(contender, accuracy, tmp_path):
    cell = make_cell(contender=contender, gradient="continuous", **accuracy)
    counts = CONTENDERS[contender].observe(build(cell, tmp_path), cell).counts
    assert counts.steps_backward and counts.steps_backward * 4 <= counts.f_calls_backward
    if cell.steps is not None:
        assert counts.steps_backward == cell.steps
    exact = replace(cell, gradient="backprop")
    assert CONTENDERS[contender].observe(build(exact, tmp_path), exact).counts.steps_backward is None


@pytest.mark.parametrize(("contender", "their_method"), STEPPED)
def test_on_equal_steps_a_rivals_method_agrees_with_ours_of_the_same_name(contender, their_method, tmp_path):
    installed(contender)
    cell = make_cell(
        contender=contender, gradient=CONTENDERS[contender].gradients[-1], method=their_method, **FIXED, steps=6
    )
    assert decline(cell) is None
    theirs = observed(cell, tmp_path)
    assert distance(theirs, cell, tmp_path) < ROUNDING
    assert theirs["steps_accepted"] == 6


# Not fehlberg2: the paper's takes its embedded formula for the error estimate, so that it needs 1 / rtol steps.
@pytest.mark.parametrize("their_method", [name for name in PAPER_ADAPTIVE if name != "fehlberg2"])
def test_the_papers_adaptive_methods_agree_with_ours_of_the_same_name(their_method, tmp_path):
    installed("paper")
    cell = make_cell(contender="paper", gradient="symplectic", method=their_method, rtol=1e-5, atol=1e-5)
    # At one tolerance, with steps that differ a little in size, the errors differ by less than the tolerances.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 10 * cell.rtol


@pytest.mark.parametrize("their_gradient", ["symplectic", "aca", "baseline"])
def test_the_papers_gradients_are_those_of_its_steps(their_gradient, tmp_path):
    installed("paper")
    cell = make_cell(contender="paper", gradient=their_gradient, method="rk4", **FIXED, steps=6)
    found = {k: v for values in measure_gradient_error(cell, tmp_path) for k, v in values.items()}
    assert found["error_discrete"] < ROUNDING and found["forward_disagrees"] is False


def test_the_papers_outputs_are_among_its_steps(tmp_path):
    cell = make_cell(contender="paper", gradient="symplectic", method="rk4", **FIXED, steps=6, sizes={"outputs": 3})
    assert decline(cell) is None
    assert "multiple of 4" in str(decline(replace(cell, sizes=(("outputs", 4),))))
    installed("paper")
    assert distance(observed(cell, tmp_path), cell, tmp_path) < ROUNDING


def test_torchode_reports_the_steps_of_the_slowest_sample():
    cell = make_cell(contender="torchode", gradient="backprop")
    counts = installed("torchode").observe(PROBLEMS["mlp"].build({}, 3, "float64"), cell).counts
    # Two calls choose the first step, and k_1 is the last step's last.
    assert counts.f_calls_forward == 2 + 6 * (counts.steps_accepted + counts.steps_rejected)


def test_torchode_solves_float32_problems_in_float32(tmp_path):
    installed("torchode")
    cell = make_cell(contender="torchode", gradient="backprop", dtype="float32", rtol=1e-4, atol=1e-4)
    # Rounding is a thousandth of the tolerance.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 1e-2


class TestDecline:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"contender": "paper", "gradient": "stages"}, "paper has no gradient 'stages'"),
            ({"contender": "paper", "method": "tsit5"}, "no method 'tsit5'"),
            ({"contender": "paper", **FIXED, "steps": 3}, "tolerances only"),
            ({"contender": "paper", "method": "rk4"}, "takes steps, not tolerances"),
            ({"contender": "rampde", "gradient": "symplectic"}, "rampde has no gradient 'symplectic'"),
            ({"contender": "rampde", "gradient": "aca", "method": "rk38", **FIXED, "steps": 4}, "no method 'rk38'"),
            ({"contender": "rampde", "gradient": "aca", "method": "rk4"}, "takes steps, not tolerances"),
            (
                {
                    "contender": "rampde",
                    "gradient": "aca",
                    "method": "rk4",
                    **FIXED,
                    "steps": 4,
                    "sizes": {"outputs": 3},
                },
                "steps must be a multiple of 3",
            ),
            (
                {"contender": "rampde-bf16", "gradient": "aca", "method": "rk4", **FIXED, "steps": 4},
                "is for float32 on cuda, not for float64 on cpu",
            ),
            ({"contender": "torchode", "gradient": "aca"}, "torchode has no gradient 'aca'"),
            ({"contender": "torchode", "gradient": "backprop", "method": "rk4"}, "no method 'rk4'"),
            ({"contender": "torchode", "gradient": "backprop", "method": "euler"}, "takes steps, not tolerances"),
            ({"contender": "diffrax", "gradient": "backprop", "method": "rk4", **FIXED, "steps": 3}, "no method 'rk4'"),
            (
                {"contender": "diffrax", "gradient": "backprop", "problem": "forced", **FIXED, "steps": 3},
                "diffrax ends steps at jumps with tolerances only",
            ),
            (
                {"contender": "diffrax", "gradient": "backprop", "method": "kvaerno5", **FIXED, "steps": 3},
                "kvaerno5 takes no fixed steps",
            ),
            (
                {"contender": "diffrax", "gradient": "backprop", "method": "kencarp4"},
                "kencarp4 takes a field in two parts, and that of mlp is in one",
            ),
            ({"contender": "scipy", "gradient": "symplectic"}, "scipy has no gradient 'symplectic'"),
            ({"contender": "scipy", "gradient": "differences-bdf", **FIXED, "steps": 3}, "choose their steps"),
            ({"contender": "scipy", "gradient": "differences-bdf", "dtype": "float32"}, "not in float32 on cpu"),
            ({"contender": "scipy", "gradient": "differences-bdf", "problem": "stack"}, "a stack of several"),
            ({"contender": "pnode", "gradient": "symplectic"}, "pnode has no gradient 'symplectic'"),
            ({"contender": "pnode", "gradient": "stages", "method": "tsit5"}, "PNODE has no method 'tsit5'"),
            ({"contender": "pnode", "gradient": "stages", "method": "rk4"}, "takes steps, not tolerances"),
            (
                {
                    "contender": "pnode",
                    "gradient": "stages",
                    "problem": "forced",
                    "method": "rk4",
                    **FIXED,
                    "steps": 10,
                },
                "forced jumps, and PNODE takes equal steps",
            ),
            ({"contender": "floor", "gradient": "continuous"}, "floor has no gradient 'continuous'"),
            ({"contender": "floor", "method": "rk4"}, "takes steps, not tolerances"),
            ({"contender": "ours-compiled", "gradient": "exact"}, "no gradient 'exact'"),
        ],
    )
    def test_an_impossible_pair_has_a_reason_whatever_is_installed(self, changes, reason):
        assert reason in str(decline(make_cell(**changes)))

    @pytest.mark.parametrize(
        ("contender", "hint"),
        [
            ("torchode", ".[peers]"),
            ("diffrax", ".[peers]"),
            ("paper", "github.com/tksmatsubara"),
            ("torchdiffeq", "pip"),
        ],
    )
    def test_a_package_that_is_not_installed_is_missing_and_not_impossible(self, contender, hint, monkeypatch):
        monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: None)
        cell = make_cell(contender=contender, gradient="backprop")
        assert decline(cell) is None
        reason = str(missing(cell))
        assert "is not installed: " in reason and hint in reason

    def test_the_cells_of_a_rival_that_is_not_installed_are_skipped(self, monkeypatch, tmp_path):
        monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: None)
        fields = {"name": "small", "title": "Small", "description": "For tests.", "max_cells": 10, "budget_s": 60}
        block = {"problem": [{"name": "linear", "dim": 3}], "method": "euler", "steps": 2, "batch": 2,
                 "dtype": "float64", "device": "cpu", "threads": 1, "seed": 0,
                 "contenders": {"torchode": ["backprop"], "diffrax": ["backprop"]}}  # fmt: skip
        suite = Suite.model_validate(fields | {"cell_timeout_s": 30, "block": [block]})
        vocabulary = Vocabulary({"linear": PROBLEMS["linear"].sizes}, tuple(METHODS), decline)
        rows = list(measured(CellMeasurer(MeasurementSettings(30, 1, 0, tmp_path)), expand(suite, vocabulary)))
        assert [row.status for row in rows] == [Status.SKIPPED] * 2
        assert all("is not installed" in row.reason for row in rows)

    def test_without_a_compiler_only_contenders_that_compile_are_missing(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert "'no-such-compiler'" in str(missing(make_cell(contender="ours-compiled")))
        assert "'no-such-compiler'" in str(missing(make_cell(contender="ours-captured-compiled")))
        assert missing(make_cell(contender="ours-float64")) is missing(make_cell(contender="ours-captured")) is None

    def test_a_gradient_that_does_not_take_the_keyword_is_impossible(self):
        assert "compile=True" in str(decline(make_cell(contender="ours-compiled", gradient="aca")))
        assert "accumulate='float64'" in str(decline(make_cell(contender="ours-float64", gradient="backprop")))
        assert decline(make_cell(contender="ours-float64", gradient="aca")) is None


@pytest.mark.parametrize(
    ("contender", "keywords"),
    [
        ("ours", {}),
        ("ours-compiled", {"compile": True}),
        ("ours-captured", {"capture": True}),
        ("ours-captured-compiled", {"compile": True, "capture": True}),
        ("ours-float64", {"accumulate": "float64"}),
        ("ours-compensated", {"accumulate": "compensated"}),
    ],
)
def test_variants_of_ours_are_keywords_of_solve(contender, keywords, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "symplectic_bench.contenders.ours.solve", lambda *args, **options: given.update(options) or 1 / 0
    )
    problem, cell = PROBLEMS["linear"].build({}, 2, "float64"), make_cell(contender=contender, gradient="stages")
    with pytest.raises(ZeroDivisionError):
        CONTENDERS[contender].gradient(problem, cell).complete()
    assert {name: given[name] for name in given.keys() & {"compile", "capture", "accumulate"}} == keywords
    assert given["gradient"] == "stages"


def test_what_can_be_captured_is_a_fact_of_the_gradient(monkeypatch):
    """Of every gradient with its dials and places, whatever it is called."""
    captured, compiled = CONTENDERS["ours-captured"], CONTENDERS["ours-captured-compiled"]
    chosen = {"symplectic", "aca", "graphs-N"}
    facts = {
        name: SimpleNamespace(
            captures=name in chosen,
            compiles=name != "aca",
            obstacle_to_capture=one.obstacle_to_compile,
            obstacle_to_compile=one.obstacle_to_compile,
        )
        for name, one in STRATEGIES.items()
    }
    monkeypatch.setattr("symplectic_bench.contenders.ours.STRATEGIES", facts)
    assert captured.gradients == ("aca", "symplectic") and compiled.gradients == ("symplectic",)
    assert decline(make_cell(contender="ours-captured", gradient="aca")) is None
    reason = decline(make_cell(contender="ours-captured-compiled", gradient="stages"))
    assert reason == "compile=True, capture=True works with symplectic, not with 'stages'"
    assert "capture=True works with" in str(decline(make_cell(contender="ours-captured", gradient="graphs-8")))


def test_a_captured_gradient_is_set_up_before_it_is_timed(monkeypatch, tmp_path):
    """Its first call, which captures, is timed apart, as that of a contender that compiles."""

    def eager(*args, capture=False, **how):
        return solve(*args, **how)

    monkeypatch.setattr("symplectic_bench.contenders.ours.solve", eager)
    cells = [make_cell(problem="linear", contender=name) for name in ("ours-captured", "ours")]
    values = list(measure_wall_time(cells, tmp_path, 0, 1))
    assert [value["cell"] for value in values if "compile_s" in value] == [0]
    assert sorted(value["cell"] for value in values if "forward_s" in value) == [0, 1]
    assert missing(cells[0]) is None  # it needs no compiler


def test_every_contender_says_what_it_is():
    for name, contender in CONTENDERS.items():
        assert contender.name == name and contender.gradients
        assert contender.framework in ("torch", "jax", "numpy")
    first_call_is_longer = [name for name, contender in CONTENDERS.items() if contender.compiles]
    ours = ["ours-compiled", "ours-captured", "ours-captured-compiled"]
    assert first_call_is_longer == [*ours, "diffrax", "diffrax-reversible"]
