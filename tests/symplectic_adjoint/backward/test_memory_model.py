"""The predicted bytes by hand: D = 10, P = 7, A = 100, s = 4, three outputs."""

from dataclasses import replace

import pytest

from symplectic_adjoint.backward.budget import Budget
from symplectic_adjoint.backward.cost import CallCost
from symplectic_adjoint.backward.memory_model import MemoryModel, backward_calls

COST = CallCost(
    state_bytes=10,
    parameter_bytes=7,
    graph_bytes=100,
    saved_bytes=90,
    vjp_peak_bytes=130,
    separate_peak_bytes=150,
    linearize_peak_bytes=110,
    call_peak_bytes=50,
    call_s=1.0,
    vjp_s=1.0,
)
MODEL = MemoryModel(COST, stages=4, outputs=3, adaptive=False)


def of(model=MODEL, adaptive=False, **cost):
    return replace(model, cost=replace(COST, **cost), adaptive=adaptive)


@pytest.mark.parametrize(
    ("model", "kept", "peak"),
    [
        # Outputs and stages 70, the state and its sum 20, the call 50, and those kept.
        (MODEL, (0, 0, 0), 70 + 20 + 50),
        (MODEL, (2, 5, 0), 70 + 20 + 50 + 70),
        # A call that makes a graph takes 110.
        (MODEL, (2, 5, 3), 70 + 20 + 110 + 70 + 300),
        # Error estimates take 8 D = 80: more than 20 + 50, less than 20 + 110.
        (of(adaptive=True), (2, 5, 0), 70 + 80 + 70),
        (of(adaptive=True), (2, 5, 3), 70 + 20 + 110 + 70 + 300),
    ],
)
def test_the_forward_pass(model, kept, peak):
    assert model.forward_bytes(*kept) == peak


@pytest.mark.parametrize(
    ("model", "kept", "peak"),
    [
        # ys, their cotangents and lam 70, the parameters' sums 7, the VJP 130, the stages of the step 40.
        (MODEL, (0, 0, 0), 70 + 7 + 130 + 40),
        (MODEL, (2, 3, 0), 70 + 7 + 130 + 20 + 40),
        (MODEL, (2, 5, 0), 70 + 7 + 130 + 20 + 50),
        # A held graph's VJP takes 50 besides the graph, which is among those kept.
        (MODEL, (2, 5, 3), 70 + 7 + 50 + 20 + 50 + 300),
        (of(separate_peak_bytes=60), (2, 5, 3), 70 + 7 + 20 + 50 + 300),
    ],
)
def test_the_backward_pass(model, kept, peak):
    assert model.backward_bytes(*kept) == peak


def test_the_peak_is_the_larger_of_both():
    assert MODEL.peak_bytes(2, 5, 0) == MODEL.backward_bytes(2, 5, 0) == 277
    assert MODEL.peak_bytes(2, 5, 3) == MODEL.forward_bytes(2, 5, 3) == 570
    assert MODEL.least_bytes == 70 + 7 + 130 + 20 + 40


@pytest.mark.parametrize(
    ("vjp", "whole", "more"),
    # y0, ys three times, the graphs of six steps of four stages, what a VJP takes besides its graph, the parameters.
    [(130, 100 + 6 * 4 * 90 + 30 + 7, 400 + 30 - 130), (80, 100 + 6 * 4 * 90 + 7, 400 - 80)],
)
def test_a_solve_or_a_step_on_one_graph(vjp, whole, more):
    model = of(vjp_peak_bytes=vjp)
    assert model.whole_graph_bytes(6) == whole
    assert model.one_step_on_graph_bytes() == more


def test_the_last_of_several_steps_still_has_its_stages():
    # 2 s - 1 a step, and s - 1 saved.
    assert backward_calls(5, 4) == 5 * 7 - 3
    assert backward_calls(2, 4) == 2 * 7 - 3
    assert backward_calls(1, 4) == 7


class TestBudget:
    def test_starts_are_what_fits_besides_the_step(self):
        # With the start of the step 257.
        assert [Budget(limit, MODEL).starts for limit in (257, 266, 267, 300)] == [0, 0, 1, 4]

    def test_graphs_are_what_fits_besides_states(self):
        # The forward pass with a graph takes 370, of which 100 are the graph.
        assert [Budget(limit, MODEL).graphs_beside(2, 5) for limit in (100, 369, 370, 999)] == [0, 0, 1, 7]

    def test_graphs_at_the_end_are_besides_all_starts_but_the_first_and_all_stages_but_one_a_step(self):
        # Of three steps 2 starts and 9 stages: the forward pass with a graph takes 410.
        assert [Budget(limit, MODEL).graphs_at_the_end(3) for limit in (409, 410, 999)] == [0, 1, 6]
