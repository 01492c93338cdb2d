"""How many kernels a solve and its gradient launch on a card, outside func and its VJPs.

They are counted on the CPU, with the code that runs on a card: see tests/launches.py.
"""

import pytest
import torch
from torch import nn

from symplectic_adjoint import METHODS, solve
from symplectic_adjoint.backward.recomputed_values import RecomputedValues
from symplectic_adjoint.field import few_launches
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.launches import count_launches

RUNGE_KUTTA = [name for name in EXPLICIT_METHODS if name != "leapfrog"]
ADAPTIVE = [name for name in RUNGE_KUTTA if METHODS[name].adaptive]


class Net(nn.Module):
    """Two layers that do not use t: every operator in a backward pass belongs to a VJP, or is ours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()

    def forward(self, t, y):
        return self.layers(y)


@pytest.fixture(autouse=True)
def on_a_card(monkeypatch):
    """Let the CPU count as a card, on which equal values are not known to be equal."""
    monkeypatch.setattr(few_launches, "DEVICES", ("cpu",))
    monkeypatch.setattr(RecomputedValues, "_surely_equal", lambda self, a, b: False)


def launches_of(method, gradient, options, outputs=(), size=2, **keywords):
    """Return our launches in the forward and in the backward pass, and the stats."""
    func, y0 = Net(), torch.linspace(-1.0, 1.0, 3 * size, dtype=torch.float64).reshape(size, 3).requires_grad_()
    t = torch.tensor([0.0, *outputs, 1.0], dtype=torch.float64)
    solution, forward = count_launches(
        solve, func, y0, t, method=method, gradient=gradient, options=options, **keywords
    )
    total = solution.ys.sum()
    _, backward = count_launches(total.backward)
    return forward.ours, backward.ours, solution.stats


def a_step(method, gradient):
    """Return our launches per fixed step, in the forward and in the backward pass.

    From 2 and 6 steps: what is done once in 8 steps, or once a solve, does not count.
    """
    few, many = (launches_of(method, gradient, {"step_size": 1.0 / n}) for n in (2, 6))
    assert (few[2].accepted, many[2].accepted) == (2, 6)
    return (many[0] - few[0]) / 4, (many[1] - few[1]) / 4


@pytest.mark.parametrize("method", RUNGE_KUTTA)
def test_a_step_launches_a_kernel_for_each_stage_and_one_for_its_end(method):
    assert a_step(method, "symplectic")[0] <= METHODS[method].stages + 1


@pytest.mark.parametrize("method", RUNGE_KUTTA)
def test_its_transpose_launches_three_kernels_for_each_stage_and_five_more(method):
    """For each stage: its part of the recomputed sums, of the w_i, and of dL/dtheta.

    The five: lam's part of the w_i, y+, its difference from that of the forward pass, the norm of that, and lam.
    """
    assert a_step(method, "symplectic")[1] <= 3 * METHODS[method].stages + 5


@pytest.mark.parametrize("method", RUNGE_KUTTA)
def test_kept_stages_are_compared_with_two_kernels_each(method):
    assert a_step(method, "stages")[1] <= 5 * METHODS[method].stages + 3


@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_error_of_a_step_takes_few_kernels(method):
    def forward(max_step):
        launches, _, stats = launches_of(method, "symplectic", {"first_step": max_step, "max_step": max_step}, rtol=1.0)
        return launches, stats.accepted + stats.rejected

    (few, short), (many, long) = forward(1.0 / 8), forward(1.0 / 24)
    assert long > short
    tableau = METHODS[method]
    terms = max(error[-1][0] for error in tableau.terms.errors) + 1
    calls = max(tableau.stages, terms)
    estimates = len(tableau.terms.errors)
    # A transfer of times; y+; |y| and |y+|, their maximum, the tolerance; each error over it, its norm; a read.
    assert (many - few) / (long - short) <= calls + 2 + 3 + 2 * estimates + 1


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "tsit5", "rk4"])
def test_an_output_inside_a_step_adds_a_kernel_to_the_sums_of_its_transpose(method):
    options = {"step_size": 0.25}
    without, one = (launches_of(method, "symplectic", options, outputs) for outputs in ((), (0.3,)))
    interpolant, s = METHODS[method].interpolant, METHODS[method].stages
    added_rows = max(0, interpolant.rows - s)
    # mu's part, f at the end if it is needed, and for each stage that the interpolant adds its own sums.
    assert one[1] - without[1] <= 2 + 3 * added_rows + added_rows * (s + added_rows)


@pytest.mark.parametrize(("steps", "transfers"), [(5, 1), (64, 1), (65, 2), (150, 3)])
def test_the_times_of_64_steps_are_moved_at_once(steps, transfers):
    func, y0 = Net(), torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    solution, forward = count_launches(solve, func, y0, t, method="rk4", options={"step_size": 1.0 / steps})
    total = solution.ys.sum()
    _, backward = count_launches(total.backward)
    place = "field/time_tensors.py:TimeTensors"
    for launches in (forward, backward):
        assert launches.by_place[f"{place}._load"] == transfers
        assert launches.by_place[f"{place}.of"] == 0


def test_a_large_state_is_summed_with_the_least_memory(monkeypatch):
    """That takes more launches: each sum is formed when it is needed."""
    together = launches_of("dopri5", "symplectic", {"step_size": 0.25})
    monkeypatch.setattr(few_launches, "SMALL_STATE", 2 * 3 * 8 - 1)
    in_turn = launches_of("dopri5", "symplectic", {"step_size": 0.25})
    assert in_turn[0] - together[0] > 4 * 10 and in_turn[1] - together[1] > 4 * 20
