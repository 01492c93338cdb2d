"""rampde against ours. Most tests are skipped where it is not installed."""

import contextlib
import itertools
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from symplectic_bench.contenders.rampde import RAMPDE, RAMPDE_BF16
from symplectic_bench.contenders.registry import decline, missing
from symplectic_bench.measure.gradient_error import forward_error, measure_gradient_error
from symplectic_bench.problems import build
from tests.symplectic_bench.contenders.against_ours import ROUNDING, distance, installed, observed
from tests.symplectic_bench.sample_cells import FIXED, make_cell

CELL = make_cell(contender="rampde", gradient="aca", method="rk4", **FIXED, steps=12, sizes={"outputs": 3})


@pytest.mark.parametrize("their_method", EXPLICIT_METHODS)
def test_outputs_and_gradient_are_ours(their_method, tmp_path):
    installed("rampde")
    cell = replace(CELL, method=their_method)
    assert distance(observed(cell, tmp_path), cell, tmp_path) < ROUNDING


def test_its_gradient_is_that_of_its_steps(tmp_path):
    installed("rampde")
    cell = make_cell(contender="rampde", gradient="aca", method="rk4", **FIXED, steps=6)
    found = {name: value for values in measure_gradient_error(cell, tmp_path) for name, value in values.items()}
    assert found["error_discrete"] < ROUNDING and found["forward_disagrees"] is False


def test_float32_problems_are_solved_in_float32(tmp_path):
    installed("rampde")
    cell = replace(CELL, dtype="float32")
    observation = RAMPDE.observe(build(cell, tmp_path), cell)
    assert {g.dtype for g in observation.gradient} == {observation.final_state.dtype} == {torch.float32}
    # Rounding of some hundred f calls
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 1e-5


def test_it_computes_every_stage_once_more_in_the_backward_pass(tmp_path):
    installed("rampde")
    counts = RAMPDE.observe(build(CELL, tmp_path), CELL).counts
    assert (counts.f_calls_forward, counts.f_calls_backward) == (4 * 12, 4 * 12)
    assert (counts.vjps_forward, counts.vjps_backward) == (0, 4 * 12)
    assert (counts.steps_accepted, counts.steps_rejected) == (12, 0)


@pytest.fixture
def package(monkeypatch):
    """Stand in for the package: euler's rule, with outputs in bfloat16 under autocast on a card."""
    module, under = ModuleType("rampde"), []

    def odeint(func, y0, t, *, method):
        under.append(torch.is_autocast_enabled("cuda"))
        ys = [y0]
        for start, end in itertools.pairwise(t):
            ys.append(ys[-1] + (end - start).to(y0) * func(start, ys[-1]))
        found = torch.stack(ys)
        return found.bfloat16() if under[-1] else found

    module.odeint = odeint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rampde", module)
    return under


@pytest.fixture
def card(monkeypatch):
    """Switch autocast for CUDA on and off, which torch does only where there is CUDA."""

    @contextlib.contextmanager
    def autocast(device, dtype):
        assert (device, dtype) == ("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", True)
        yield
        torch.set_autocast_enabled("cuda", False)

    monkeypatch.setattr(torch, "autocast", autocast)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("contender", "mixed"), [(RAMPDE, False), (RAMPDE_BF16, True)])
def test_only_the_mixed_contender_runs_under_autocast_and_its_rows_have_the_dtype_of_the_cell(
    contender, mixed, package, tmp_path
):
    cell = replace(CELL, contender=contender.name, method="euler", dtype="float32")
    problem = build(cell, tmp_path)
    ys = contender.solve(problem.func, problem, cell)
    assert package == [mixed] and not torch.is_autocast_enabled("cuda")
    assert ys.dtype == torch.float32 and len(ys) == 4
    expected = replace(cell, contender="rampde")
    exact = RAMPDE.solve(problem.func, build(expected, tmp_path), expected)
    # bfloat16 has 8 bits
    torch.testing.assert_close(ys, exact, rtol=2**-8 if mixed else 0, atol=0)
    assert torch.equal(ys, exact) != mixed


@pytest.mark.usefixtures("card", "package")
def test_a_forward_solution_in_mixed_precision_is_held_to_that_precision(tmp_path):
    cell = replace(CELL, contender="rampde-bf16", method="euler", dtype="float32")
    problem = build(cell, tmp_path)
    observation = RAMPDE_BF16.observe(problem, cell)
    assert forward_error(observation, problem, cell, tmp_path)["forward_disagrees"] is False
    in_float32 = replace(observation, precision=None)
    assert forward_error(in_float32, problem, cell, tmp_path)["forward_disagrees"] is True


def test_mixed_precision_is_that_of_float32_on_a_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    mixed = replace(CELL, contender="rampde-bf16", dtype="float32", device="cuda")
    assert decline(mixed) is None
    assert "use rampde" in str(decline(replace(mixed, dtype="float64")))
    assert "use rampde" in str(decline(replace(mixed, device="cpu")))


def test_where_it_is_absent_its_cells_say_how_to_install_it(monkeypatch):
    monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: None)
    assert decline(CELL) is None
    assert missing(CELL) == ('rampde is not installed: python -m pip install "git+https://github.com/EmoryMLIP/rampde"')
