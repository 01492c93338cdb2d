"""The peak memory that gradient="auto" predicts, against the measured one, over the suite's problems."""

import math

import pytest

from symplectic_adjoint import Auto, BudgetTooSmall, measure_memory, solve
from symplectic_bench.data.tables import cache_table
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.problems import build as build_cell
from tests.symplectic_bench.sample_cells import make_cell

SIZES = {
    "flow": {"data": "wine", "width": 32},
    "robertson": {"end": 0.01},
    "outlier": {"factor": 1.5, "end": 1.0},
    "cahn_hilliard": {"points": 12},
    "coupled_oscillators": {"end": 5.0},
    "double_pendulum": {"end": 2.0},
    "lorenz": {"end": 0.5},
    "fitzhugh_nagumo": {"end": 10.0},
    "lotka_volterra": {"end": 2.0},
    "memory_flow": {"end": 2.0},
    "kdv": {"end": 1.0},
    "hires": {"end": 0.1, "outputs": 1},
    "stiff_spiral": {"end": 0.1, "outputs": 1},
    "pharmacokinetics": {"end": 0.02, "doses": 1, "outputs": 1},
    "allen_cahn": {"points": 16, "end": 0.5},
    "brusselator": {"points": 8, "end": 0.5},
    "brusselator_2d": {"points": 4, "end": 0.2},
}
"""Of those that take many steps, or more than 24, by default."""
KEPT = (1.0, 1.4, 4.0, 1e6)
"""Budgets, as multiples of the least."""


@pytest.mark.parametrize("steps", [None, 24])
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "identity"])  # whose f has no graph
def test_the_peak_is_the_predicted_one_within_15_percent(name, steps, tmp_path):
    if name == "flow":
        cache_table("wine", tmp_path)
    whole = build_cell(make_cell(problem=name, sizes=SIZES.get(name, {}), batch=170), tmp_path)
    problem = whole.component(0, whole.y0)
    options = {"step_size": float(problem.t[-1] - problem.t[0]) / steps} if steps else {}
    how = {"options": options, "rtol": 1e-6, "atol": 1e-6, "params": problem.unlisted or None}
    of_outputs = len(problem.t) * problem.y0.numel() * problem.y0.element_size()
    with pytest.raises(BudgetTooSmall) as caught:
        solve(problem.func, problem.y0, problem.t, gradient=Auto(1), **how)
    for share in KEPT:
        gradient = Auto(math.ceil(caught.value.least_bytes * share))
        choice = solve(problem.func, problem.y0, problem.t, gradient=gradient, **how).stats.choice
        # It begins when the outputs' cotangents, which a loss makes beside tensors of its own, are there already.
        peak = measure_memory(problem.func, problem.y0, problem.t, gradient=gradient, **how).peak_tensor_bytes
        assert peak <= 1.02 * gradient.memory_budget + 4096  # the time grid and other numbers
        assert peak <= 1.15 * choice.predicted_peak_bytes + 4096, (share, choice)
        assert choice.predicted_peak_bytes <= 1.15 * (peak + of_outputs) + 4096, (share, choice)
