"""The floor makes the calls that ours makes, holds what the formulas say, and computes no gradient."""

from dataclasses import replace

import pytest

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.floor import FLOOR, shares
from symplectic_bench.contenders.observation import NoGradient
from symplectic_bench.contenders.ours import OURS
from symplectic_bench.measure.floor import floor_tensor_bytes, measure_floor
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.measure.tensor_memory import measure_tensor_memory, peaks
from symplectic_bench.problems import PROBLEMS, build
from tests.symplectic_bench.sample_cells import FIXED, make_cell

SETTINGS = [{"method": "dopri5"}, {"method": "rk4", **FIXED, "steps": 5}, {"method": "tsit5", **FIXED, "steps": 1}]


class TestFloor:
    @pytest.mark.parametrize("setting", SETTINGS, ids=["dopri5", "rk4", "one-step"])
    @pytest.mark.parametrize("gradient", FLOOR.gradients)
    def test_it_makes_the_calls_that_ours_makes(self, gradient, setting, tmp_path):
        sizes = {"end": 1.0}
        cell = make_cell(problem="van_der_pol", sizes=sizes, gradient=gradient, contender="floor", **setting)
        problem = build(cell, tmp_path)
        ours = OURS.observe(build(cell, tmp_path), replace(cell, contender="ours")).counts
        counted = CountedField(problem.func)
        run = FLOOR.gradient(replace(problem, func=counted), cell)
        counted.calls, counted.vjps = [0, 0], [0, 0]  # it has counted ours, with a copy
        run.forward()
        counted.backward_phase = True
        run.backward()
        assert counted.counts(ours.steps_accepted, ours.steps_rejected) == ours
        assert FLOOR.observe(problem, cell).counts == ours

    @pytest.mark.parametrize("gradient", FLOOR.gradients)
    def test_its_peak_is_the_formulas(self, gradient, tmp_path):
        cell = make_cell(contender="floor", gradient=gradient, batch=64, sizes={"state": 8, "width": 32})
        problem = build(cell, tmp_path)
        floor, _ = measure_floor(problem)
        counts = FLOOR.observe(problem, cell).counts
        formula = floor_tensor_bytes(floor, gradient, counts.steps_accepted, METHODS[cell.method].stages)
        # Not to a byte: the allocator's blocks are of 64 bytes, and the first gradients come one after the other.
        assert peaks(problem, cell)["peak_tensor_bytes"] == pytest.approx(formula, rel=0.02)

    @pytest.mark.parametrize("gradient", FLOOR.gradients)
    def test_between_the_passes_it_holds_what_the_gradient_must(self, gradient, tmp_path):
        cell = make_cell(contender="floor", gradient=gradient, batch=64, method="rk4", **FIXED, steps=10)
        problem = build(cell, tmp_path)
        floor, _ = measure_floor(problem)
        D, A = floor.state_bytes, floor.graph_bytes
        # With symplectic the stages of the last step too; with baseline the start, which is the problem's.
        held = {"symplectic": 14 * D, "aca": 10 * D, "stages": 40 * D, "baseline": 0, "backprop": 40 * A}
        # A graph's small parts: the time, the product of time and weights.
        assert peaks(problem, cell)["kept_tensor_bytes"] == pytest.approx(held[gradient], rel=0.02)

    @pytest.mark.parametrize("problem", [name for name, family in PROBLEMS.items() if not family.stacked])
    def test_it_runs_on_every_problem_and_leaves_gradients_of_its_parameters(self, problem, tmp_path):
        shorter = {"robertson": {"end": 0.01}, "outlier": {"factor": 2.0}, "lorenz": {"end": 0.5}}
        shorter |= {"hires": {"end": 0.5}, "pharmacokinetics": {"end": 0.1}}
        sizes = {"flow": {"data": "wine"}, **shorter}.get(problem, {})
        if problem == "flow":
            from symplectic_bench.data.tables import cache_table

            cache_table("wine", tmp_path)
        cell = make_cell(contender="floor", problem=problem, sizes=sizes, rtol=1e-3, atol=1e-3)
        for gradient in FLOOR.gradients:
            built = build(cell, tmp_path)
            FLOOR.gradient(built, replace(cell, gradient=gradient)).complete()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters), gradient

    def test_it_counts_ours_on_a_copy_and_once(self, tmp_path, monkeypatch):
        cell = make_cell(contender="floor", seed=12345)
        problem = build(cell, tmp_path)
        FLOOR.gradient(problem, cell)
        assert all(x.grad is None for x in problem.inputs)
        monkeypatch.setattr("symplectic_bench.contenders.floor.OURS", None)
        FLOOR.gradient(problem, cell)

    def test_its_row_has_counts_and_reasons_and_no_error(self, tmp_path):
        cell = make_cell(contender="floor")
        assert isinstance(FLOOR.observe(build(cell, tmp_path), cell), NoGradient)
        (found,) = measure_gradient_error(cell, tmp_path)
        assert found["error_true_reason"] == found["error_discrete_reason"] == "the floor computes no gradient"
        assert found["vjps_backward"] > 0 and "forward_disagrees" not in found and "loss" not in found

    def test_it_is_measured_like_any_other(self, tmp_path):
        cell = make_cell(contender="floor", gradient="aca")
        counts = FLOOR.observe(build(cell, tmp_path), cell).counts
        *_, found = measure_tensor_memory(cell, tmp_path, counts)
        assert found["peak_tensor_source"] == "exact" and found["peak_tensor_bytes"] > 0

    def test_shares_are_even_and_complete(self):
        assert shares(7, 3) == [3, 2, 2] and shares(0, 2) == [0, 0]
        assert all(sum(shares(n, 4)) == n for n in range(12))
