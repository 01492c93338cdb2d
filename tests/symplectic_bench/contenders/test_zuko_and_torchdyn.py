"""zuko and torchdyn against ours. Tests that run them are skipped where they are not installed."""

import sys
from types import ModuleType

import pytest

from symplectic_bench.contenders.registry import CONTENDERS, decline, missing
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.problems import build
from symplectic_bench.references import compute_reference
from tests.symplectic_bench.contenders.against_ours import ROUNDING, distance, installed, observed
from tests.symplectic_bench.sample_cells import FIXED, make_cell

ADAPTIVE = [
    ("zuko", "continuous", {}),
    ("torchdyn", "backprop", {}),
    ("torchdyn", "backprop", {"method": "tsit5"}),
    ("torchdyn", "continuous-seminorm", {}),
]
BY_TOLERANCE = 1e-4
"""A hundred times the tolerance of these cells: the steps are not the same ones."""


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(("contender", "gradient", "how"), ADAPTIVE)
def test_their_gradient_is_ours_to_the_tolerance(contender, gradient, how, outputs, tmp_path):
    installed(contender)
    cell = make_cell(contender=contender, gradient=gradient, sizes={"outputs": outputs}, **how)
    assert decline(cell) is None
    theirs = observed(cell, tmp_path)
    assert ROUNDING < distance(theirs, cell, tmp_path) < BY_TOLERANCE


def test_on_equal_steps_torchdyns_gradient_is_ours(tmp_path):
    installed("torchdyn")
    for method in ("euler", "midpoint"):
        steps = {"method": method, **FIXED, "steps": 12, "sizes": {"outputs": 3}}
        cell = make_cell(contender="torchdyn", gradient="backprop", **steps)
        assert distance(observed(cell, tmp_path), cell, tmp_path) < ROUNDING


def test_zuko_has_a_true_error_and_no_discrete_one(tmp_path):
    installed("zuko")
    cell = make_cell(contender="zuko", gradient="continuous", sizes={"width": 8}, rtol=1e-4, atol=1e-4)
    compute_reference(cell, tmp_path)
    row = {}
    for values in measure_gradient_error(cell, tmp_path):
        row |= values
    assert row["forward_disagrees"] is False and 1e-9 < row["error_true"] < 1e-2
    assert "error_discrete" not in row and row["error_discrete_reason"] == "zuko does not report its steps"


@pytest.mark.parametrize(
    ("contender", "gradient", "how", "reason"),
    [
        ("zuko", "aca", {}, "zuko has no gradient 'aca'"),
        ("zuko", "continuous", {"method": "tsit5"}, "zuko has no method 'tsit5'; it has dopri5"),
        ("zuko", "continuous", {**FIXED, "steps": 4}, "with tolerances only"),
        ("torchdyn", "backprop", {"method": "rk4", **FIXED, "steps": 4}, "torchdyn has no method 'rk4'"),
        ("torchdyn", "backprop", {**FIXED, "steps": 4}, "with tolerances only"),
        ("torchdyn", "backprop", {"method": "euler"}, "takes steps, not tolerances"),
        ("torchdyn", "continuous-seminorm", {"method": "euler", **FIXED, "steps": 4}, "one step from output to output"),
        (
            "torchdyn",
            "backprop",
            {"method": "euler", **FIXED, "steps": 4, "sizes": {"outputs": 3}},
            "must be a multiple of 3",
        ),
        ("zuko", "continuous", {"problem": "regularized"}, "states of one tensor only"),
    ],
)
def test_what_they_have_not_is_declined(contender, gradient, how, reason):
    assert reason in decline(make_cell(contender=contender, gradient=gradient, **how))


@pytest.mark.parametrize("contender", ["zuko", "torchdyn"])
def test_a_missing_package_says_how_to_install_it(contender, monkeypatch):
    monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: None)
    cell = make_cell(contender=contender, gradient=CONTENDERS[contender].gradients[0])
    assert missing(cell) == f"{contender} is not installed: python -m pip install {contender}"


def test_zuko_is_given_every_parameter_and_both_tolerances(monkeypatch, tmp_path):
    """Checked with a stand-in, since it would leave out gradients without a word."""
    given = []

    def odeint(f, x, t0, t1, phi=(), atol=1e-6, rtol=1e-5):
        given.append((t0, t1, list(phi), atol, rtol))
        return x + (t1 - t0) * f(x.new_tensor(t0), x)

    module = ModuleType("zuko.utils")
    module.odeint = odeint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zuko", ModuleType("zuko"))
    monkeypatch.setitem(sys.modules, "zuko.utils", module)
    cell = make_cell(contender="zuko", gradient="continuous", problem="unlisted", sizes={"outputs": 2}, atol=1e-7)
    problem = build(cell, tmp_path)
    CONTENDERS["zuko"].observe(problem, cell)
    times = problem.t.tolist()
    assert [one[:2] for one in given] == [(times[0], times[1]), (times[1], times[2])]
    assert all({id(p) for p in one[2]} == {id(p) for p in problem.parameters} for one in given)
    assert {one[3:] for one in given} == {(1e-7, 1e-6)}
