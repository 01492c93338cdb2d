"""advise: the predicted cost of each gradient against the measured one."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint import solve
from tests.fields import Counted, SmallNet, start
from tests.symplectic_adjoint.gradients.test_auto import T, Wide

GRIDS = {"fixed": {"method": "rk4", "options": {"step_size": 0.04}}, "adaptive": {"rtol": 1e-8, "atol": 1e-8}}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("batch", [8, 256])
def test_predictions_agree_with_measurements(grid, batch):
    how = GRIDS[grid]
    func, y0 = Wide(), torch.randn(batch, 8, dtype=torch.float64)
    advice = sa.advise(func, y0, T, **how)
    assert {row.gradient for row in advice.rows} >= {
        "backprop", "baseline", "aca", "stages", "symplectic", "revolve", "reversible",
    }  # fmt: skip
    state = y0.numel() * 8
    for row in advice.rows:
        solution = solve(func, y0, T, gradient=row.gradient, **how)
        solution.ys.sum().backward()
        func.zero_grad()
        own_steps, adaptive = row.gradient == "reversible", grid == "adaptive"
        if not own_steps:
            assert solution.stats.accepted == advice.steps
            assert solution.stats.vjps_backward == row.vjps_backward
        if not own_steps and not (adaptive and row.gradient == "revolve"):  # it does not know N in advance
            assert solution.stats.f_calls_backward == row.f_calls_backward
        if not adaptive:
            assert solution.stats.f_calls_forward == row.f_calls_forward
        peak = sa.measure_memory(func, y0, T, gradient=row.gradient, **how).peak_tensor_bytes
        # measure_memory starts with two states live, the cotangents. Predictions may be 15 % off, plus scalars.
        assert peak <= 1.15 * row.peak_tensor_bytes + 4096, row
        assert row.peak_tensor_bytes <= 1.15 * (peak + 2 * state) + 4096, (row, peak)


def test_the_fastest_gradient_that_fits_is_marked():
    func, y0 = Wide(), torch.randn(64, 8, dtype=torch.float64)
    how = GRIDS["fixed"]
    everything = sa.advise(func, y0, T, memory_budget="1 GiB", **how)
    assert everything.best == everything.rows[0] and everything.best.gradient == "backprop"
    assert "* the fastest of these within 1 GiB" in str(everything)
    by_name = {row.gradient: row for row in everything.rows}
    some = sa.advise(func, y0, T, memory_budget=by_name["symplectic"].peak_tensor_bytes, **how)
    assert some.best.gradient in ("symplectic", "revolve", "reversible")
    assert some.best.peak_tensor_bytes <= some.budget_bytes
    assert "the least is" in str(sa.advise(func, y0, T, **how))
    nothing = sa.advise(func, y0, T, memory_budget=1, **how)
    assert nothing.best is None and "nothing fits into 1 B" in str(nothing)


def test_least_bytes_is_the_smallest_budget_that_auto_accepts():
    func, y0 = Wide(), torch.randn(64, 8, dtype=torch.float64)
    how = GRIDS["fixed"]
    least = sa.advise(func, y0, T, **how).least_bytes
    solve(func, y0, T, gradient="auto", memory_budget=least, **how)
    with pytest.raises(sa.BudgetTooSmall):
        solve(func, y0, T, gradient="auto", memory_budget=least - 1, **how)


def test_nothing_is_changed_and_an_invalid_budget_is_named():
    func = Counted(SmallNet())
    with pytest.raises(ValueError, match="memory_budget must be positive"):
        sa.advise(func, start(), T, memory_budget=0)
    assert func.calls == 0
    sa.advise(func, start(), T)
    assert all(p.grad is None for p in func.parameters())


@pytest.mark.parametrize("method", ["kvaerno3", "crank_nicolson"])
def test_the_calls_of_an_implicit_method_are_not_predicted(method):
    with pytest.raises(
        sa.UnsupportedCombination, match=rf"method='{method}', which is implicit: measure them by compare"
    ):
        sa.advise(SmallNet(), start(), torch.tensor([0.0, 1.0], dtype=torch.float64), method=method)
