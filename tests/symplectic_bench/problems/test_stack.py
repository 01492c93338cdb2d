"""Stacks of components and tensors that a module does not list: contenders solve and count them alike."""

import pytest
import torch
from torch import nn

from symplectic_adjoint import METHODS, odeint
from symplectic_bench.analysis.f_call_formula import formula_f_calls
from symplectic_bench.contenders.registry import CONTENDERS, decline
from symplectic_bench.measure.floor import floor_tensor_bytes, measure_floor
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.measure.tensor_memory import peaks
from symplectic_bench.oracles.recorded_grid import relative_error
from symplectic_bench.oracles.twin import DigitsTwin
from symplectic_bench.problems import build, in_turn
from symplectic_bench.problems.problem import Stack
from symplectic_bench.references import compute_reference
from symplectic_bench.references.converged import converged_reference
from symplectic_bench.references.taylor import can_expand
from tests.symplectic_bench.sample_cells import FIXED, make_cell
from tests.symplectic_bench.sample_rows import a_row

SMALL = {"components": 3, "state": 2, "width": 3, "layers": 1}


def stack_cell(**changes):
    values = {"problem": "stack", "sizes": SMALL, "method": "rk38", **FIXED, "steps": 4, **changes}
    return make_cell(**values)


def gradient_by_hand(problem, steps):
    """Solve the components one after another by the textbook."""
    y, t, h = problem.y0, 0.0, float(problem.t[-1]) / steps
    tableau = METHODS["rk38"]
    for field in problem.fields:
        for n in range(steps):
            k = []
            for a, c in zip(tableau.A, tableau.c, strict=True):
                Y = y + h * sum((float(x) * slope for x, slope in zip(a, k, strict=False)), start=torch.zeros_like(y))
                k.append(field(torch.tensor(t + (n + float(c)) * h, dtype=y.dtype), Y))
            y = y + h * sum(
                (float(b) * slope for b, slope in zip(tableau.b, k, strict=True)), start=torch.zeros_like(y)
            )
    return torch.autograd.grad(problem.loss(torch.stack((problem.y0, y))), problem.inputs)


@pytest.mark.parametrize(
    ("contender", "gradient"),
    [("ours", g) for g in ("symplectic", "aca", "baseline", "backprop", "revolve-2")] + [("torchdiffeq", "backprop")],
)
def test_the_gradient_is_that_of_all_components(contender, gradient, tmp_path):
    cell = stack_cell(contender=contender, gradient=gradient)
    observation = CONTENDERS[contender].observe(build(cell, tmp_path), cell)
    expected = gradient_by_hand(build(cell, tmp_path), steps=4)
    # Twelve steps of four stages, summed in a different order than by hand.
    assert relative_error(observation.gradient, expected) < 1e-14


@pytest.mark.parametrize(
    ("contender", "gradient"),
    [("ours", "symplectic"), ("ours", "reversible"), ("torchdiffeq", "backprop"), ("torchdiffeq", "continuous")],
)
def test_errors_are_measured_in_fifty_digits(contender, gradient, tmp_path):
    cell = stack_cell(contender=contender, gradient=gradient)
    compute_reference(cell, tmp_path)
    row = {}
    for values in measure_gradient_error(cell, tmp_path):
        row |= values
    exact = gradient != "continuous"
    assert (row["error_discrete"] < 1e-14) is exact
    assert row["error_discrete_oracle"] == "50 digits"
    assert row["error_true_reference"] == "self-convergence"
    assert 1e-8 < row["error_true"] < 1e-2
    assert row["forward_disagrees"] is (gradient == "reversible" and row["forward_error"] > 100)
    assert row["steps_accepted"] == 12


def test_f_calls_of_all_components_follow_the_formula(tmp_path):
    for gradient in ("symplectic", "aca", "baseline", "backprop"):
        cell = stack_cell(gradient=gradient)
        counts = CONTENDERS["ours"].observe(build(cell, tmp_path), cell).counts
        row = a_row(cell, steps_accepted=12, steps_rejected=0, stages=4)
        assert counts.f_calls == formula_f_calls(row), gradient
    cell = stack_cell(method="dopri5", rtol=1e-6, atol=1e-6, steps=None)
    counts = CONTENDERS["ours"].observe(build(cell, tmp_path), cell).counts
    assert counts.steps_rejected is not None
    row = a_row(cell, steps_accepted=counts.steps_accepted, steps_rejected=counts.steps_rejected, stages=6)
    assert counts.f_calls == formula_f_calls(row)


@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline", "backprop", "continuous"])
def test_the_memory_floor_counts_all_components(gradient, tmp_path):
    sizes = {"components": 3, "state": 16, "width": 32, "layers": 2}
    cell = stack_cell(gradient=gradient, sizes=sizes, batch=256, steps=16)
    problem = build(cell, tmp_path)
    floor, _ = measure_floor(problem)
    least = floor_tensor_bytes(floor, gradient, steps=48, stages=4, components=3)
    # Ours keeps the stages of the last step of every component, not only of the last one, to avoid recomputing them.
    least += 2 * 4 * floor.state_bytes if gradient == "symplectic" else 0
    # The continuous adjoint's backward solve also holds stages of the augmented state, which the formula omits.
    most = 3.0 if gradient == "continuous" else 1.1
    assert least * 0.97 <= peaks(problem, cell)["peak_tensor_bytes"] <= most * least


def test_components_have_separate_weights_and_there_may_be_one(tmp_path):
    problem = build(stack_cell(), tmp_path)
    assert problem.components == 3 and len({id(p) for p in problem.parameters}) == 3 * 5
    one = build(stack_cell(sizes={**SMALL, "components": 1}), tmp_path)
    alone = odeint(one.fields[0], one.y0, one.t, method="rk38", options={"step_size": 0.25})
    assert torch.equal(in_turn(one, lambda part: odeint(part.func, part.y0, part.t, method="rk38",
                                                        options={"step_size": 0.25})), alone)  # fmt: skip


def test_the_twin_uses_the_weights_of_each_component(tmp_path):
    problem = build(stack_cell(), tmp_path)
    twin = DigitsTwin(problem)
    for i, field in enumerate(problem.fields):
        value = twin.component(i, twin.y0).f(twin.number(0.3), twin.y0)
        expected = field(torch.tensor(0.3, dtype=torch.float64), problem.y0)
        assert float(value[0, 0].value) == pytest.approx(expected[0, 0].item(), rel=1e-14)


def test_a_stack_has_a_reference_by_self_convergence(tmp_path):
    problem = build(stack_cell(), tmp_path)
    assert not can_expand(problem, 10**9)
    assert converged_reference(problem).bar < 1e-12


@pytest.mark.parametrize("contender", ["floor", "torchode", "diffrax"])
def test_contenders_for_a_single_field_decline_a_stack(contender):
    gradient = CONTENDERS[contender].gradients[0]
    cell = stack_cell(contender=contender, gradient=gradient, method="dopri5", rtol=1e-6, atol=1e-6, steps=None)
    assert decline(cell) == "its field is a stack of several"


class TestUnlisted:
    def observed(self, contender, gradient, tmp_path):
        cell = make_cell(problem="unlisted", contender=contender, gradient=gradient)
        problem = build(cell, tmp_path)
        observation = CONTENDERS[contender].observe(problem, cell)
        problem.clear_gradients()
        ys = odeint(problem.func, problem.y0, problem.t, rtol=1e-9, atol=1e-9, gradient="backprop")
        problem.loss(ys).backward()
        return observation.gradient, problem.gradient()

    @pytest.mark.parametrize("gradient", ["symplectic", "aca", "continuous", "auto-100", "mali"])
    def test_our_gradient_includes_it(self, gradient, tmp_path):
        found, expected = self.observed("ours", gradient, tmp_path)
        assert len(found) == 3 and relative_error(found, expected) < 1e-3

    def test_the_adjoint_of_torchdiffeq_loses_it(self, tmp_path):
        found, expected = self.observed("torchdiffeq", "continuous", tmp_path)
        assert bool((found[2] == 0).all()) and relative_error(found[:2], expected[:2]) < 1e-3

    def test_the_tensor_is_converted_with_the_problem(self, tmp_path):
        problem = build(make_cell(problem="unlisted", dtype="float32"), tmp_path)
        assert [p.dtype for p in problem.parameters] == [torch.float32] * 2
        twin = problem.to(torch.float64)
        assert twin.unlisted[0].dtype == torch.float64 and twin.unlisted[0].requires_grad
        assert len(list(problem.func.parameters())) == 1

    def test_other_problems_have_no_unlisted_tensors(self, tmp_path):
        assert build(make_cell(), tmp_path).unlisted == ()
        assert isinstance(build(stack_cell(), tmp_path).func, Stack | nn.ModuleList)
