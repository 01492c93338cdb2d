"""f calls are exact, as docs/derivation.md states them."""

import math

import pytest
import torch

from symplectic_adjoint import GRADIENTS, METHODS, Revolve, Symplectic, solve
from symplectic_adjoint.backward.schedule import advances
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS, IMPLICIT_METHODS
from tests.fields import Counted, SmallNet, start
from tests.gradients import EXACT

T = torch.tensor([0.0, 2.0], dtype=torch.float64)


def counted_solve(method, gradient="symplectic", t=T, **options):
    func = Counted(SmallNet())
    solution = solve(
        func, start().requires_grad_(), t, method=method, rtol=1e-4, atol=1e-4, options=options, gradient=gradient
    )
    forward = func.calls
    solution.ys.sum().backward()
    return solution, forward, func.calls - forward


@pytest.mark.parametrize("given", [True, False], ids=["first-step-given", "first-step-chosen"])
@pytest.mark.parametrize("method", [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive])
def test_forward_calls_of_an_adaptive_solve(method, given):
    tableau = METHODS[method]
    options = {"first_step": 0.5} if given else {}
    stats, calls, _ = counted_solve(method, **options)
    stats = stats.stats
    s = tableau.stages
    retry = s if tableau.fsal else s - 1  # k_1 is kept
    expected = stats.accepted * s + stats.rejected * retry + (1 if tableau.fsal else 0) + (0 if given else 1)
    assert calls == stats.f_calls_forward == expected


@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_forward_calls_on_a_fixed_grid_are_s_per_step(method):
    solution, calls, _ = counted_solve(method, step_size=0.25)
    assert solution.stats.accepted == 8
    assert calls == solution.stats.f_calls_forward == 8 * METHODS[method].stages


BACKWARD = {
    "backprop": lambda N, s: 0,
    "baseline": lambda N, s: N * s,
    "aca": lambda N, s: N * s,
    "symplectic": lambda N, s: N * (2 * s - 1) - (s - 1),
    "stages": lambda N, s: N * s,
}


@pytest.mark.parametrize("room", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_backward_calls_of_revolve_on_a_fixed_grid_are_the_fewest_for_its_checkpoints(method, room):
    solution, _, calls = counted_solve(method, Revolve(room), step_size=0.1)
    N, s = solution.stats.accepted, METHODS[method].stages
    again = advances(N, room) - (N - 1)  # the forward pass took the first N - 1
    assert calls == solution.stats.f_calls_backward == BACKWARD["symplectic"](N, s) + s * again


@pytest.mark.parametrize("held", [1, 5, 6, 7, 20, math.inf])
@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5", "dop853"])
def test_backward_calls_with_graphs_held(method, held):
    """A step all of whose graphs are held costs nothing; one of which r are held, s - r graphs and their states."""
    solution, forward, calls = counted_solve(method, Symplectic(graphs=held), step_size=0.25)
    N, s = solution.stats.accepted, METHODS[method].stages
    assert forward == N * s
    expected = 0
    for n in range(N):  # from the last step
        missing = s - min(s, max(0, held - n * s))
        expected += missing + (0 if n == 0 else max(0, missing - 1))
    assert calls == solution.stats.f_calls_backward == expected
    assert solution.stats.vjps_backward == N * s


@pytest.mark.parametrize("held", [1, 9, math.inf])
def test_backward_calls_with_stages_and_graphs_held(held):
    solution, _, calls = counted_solve("rk4", Symplectic(keep="stages", graphs=held), step_size=0.25)
    assert calls == solution.stats.f_calls_backward == max(0, solution.stats.accepted * 4 - held)


@pytest.mark.parametrize("adaptive", [True, False], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("gradient", BACKWARD)
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_backward_calls(method, gradient, adaptive):
    options = {} if adaptive and METHODS[method].adaptive else {"step_size": 0.25}
    solution, _, calls = counted_solve(method, gradient, **options)
    stats, s = solution.stats, METHODS[method].stages
    assert calls == stats.f_calls_backward == BACKWARD[gradient](stats.accepted, s)
    assert stats.vjps_backward == stats.accepted * s


def test_every_exact_gradient_predicts_its_calls():
    """diagnostics/test_advise.py compares the predictions with what is measured."""
    assert all(type(GRADIENTS[name]).predicted is not Strategy.predicted for name in EXACT)


@pytest.mark.parametrize("method", [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive])
def test_forward_calls_do_not_depend_on_the_number_of_outputs_where_the_method_interpolates(method):
    tableau = METHODS[method]
    if not tableau.interpolates:
        few, many = (counted_solve(method, t=torch.linspace(0, 2, n, dtype=torch.float64)) for n in (2, 41))
        assert many[0].stats.accepted >= 40 > few[0].stats.accepted  # it lands on every output instead
        return
    few, many = (counted_solve(method, t=torch.linspace(0, 2, n, dtype=torch.float64)) for n in (2, 41))
    assert many[0].stats.accepted == few[0].stats.accepted
    steps_with_outputs = len(set(many[0].grid.output_step[1:-1].tolist()))
    extra_stages = max(0, tableau.interpolant.rows - tableau.stages - 1)  # dop853 has three
    last_slope = 0 if tableau.fsal or tableau.interpolant.rows <= tableau.stages else 1
    assert many[1] - few[1] == extra_stages * steps_with_outputs + last_slope


@pytest.mark.parametrize("gradient", BACKWARD)
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5", "heun3", "midpoint"])
def test_a_step_that_holds_outputs_costs_at_most_one_more_vjp(method, gradient):
    options = {} if METHODS[method].adaptive else {"step_size": 0.25}
    solution, _, calls = counted_solve(method, gradient, torch.linspace(0, 2, 42, dtype=torch.float64), **options)
    stats, s = solution.stats, METHODS[method].stages
    holding = len(set(solution.grid.output_step[1:-1].tolist()))
    assert 0 <= calls - BACKWARD[gradient](stats.accepted, s) <= holding
    assert 0 <= stats.vjps_backward - stats.accepted * s <= holding


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_second_backward_pass_gives_the_same_and_is_counted_too(gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    solution = solve(func, y0, T, rtol=1e-4, atol=1e-4, gradient=gradient)
    solution.ys.sum().backward(retain_graph=True)
    once, first = solution.stats.f_calls_backward, y0.grad.clone()
    y0.grad = None
    solution.ys.sum().backward()
    # Symplectic has the last step's stages in the first backward pass only: they are freed as they are used.
    again = METHODS["dopri5"].stages - 1 if gradient in ("symplectic", "revolve") else 0
    assert solution.stats.f_calls_backward == 2 * once + again
    assert torch.equal(y0.grad, first)


def test_without_a_gradient_nothing_is_called_twice_or_kept():
    func = Counted(SmallNet())
    with torch.no_grad():
        solution = solve(func, start(), T, method="rk4", options={"step_size": 0.25})
    assert func.calls == 32
    assert not solution.ys.requires_grad


def test_the_second_solve_of_the_continuous_gradient_is_counted():
    """On equal steps there are as many back as forth; with tolerances each accepted step makes s calls or more."""
    y0, net = start(), SmallNet()
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    fixed = solve(net, y0, t, method="rk4", gradient="continuous", options={"step_size": 0.1})
    fixed.ys[-1].sum().backward()
    assert fixed.stats.accepted_backward == fixed.stats.accepted == 10
    free = solve(net, y0, t, method="dopri5", gradient="continuous", rtol=1e-9, atol=1e-9)
    free.ys[-1].sum().backward()
    s = METHODS["dopri5"].stages
    assert 0 < s * free.stats.accepted_backward <= free.stats.f_calls_backward
    exact = solve(net, y0, t, method="dopri5")
    exact.ys[-1].sum().backward()
    assert exact.stats.accepted_backward == 0


@pytest.mark.parametrize("gradient", [name for name in EXACT if GRADIENTS[name].takes_implicit])
@pytest.mark.parametrize("method", [name for name, tableau in IMPLICIT_METHODS.items() if not tableau.additive])
def test_calls_that_solve_for_stages_are_no_vjps(method, gradient):
    """One VJP a stage, however many calls Newton's method takes."""
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    y0 = start().requires_grad_()
    solution = solve(SmallNet(), y0, t, method=method, options={"grid_points": t}, gradient=gradient)
    torch.autograd.grad(solution.ys.sum(), y0)
    stats, stages = solution.stats, 2 * METHODS[method].stages
    assert stats.vjps_backward == stages
    if gradient not in ("backprop", "stages"):  # whose backward passes solve for nothing
        assert stats.f_calls_backward > stages
    assert stats.vjps_forward == 0
