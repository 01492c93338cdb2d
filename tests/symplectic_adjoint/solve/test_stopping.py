"""Option "stop": a solve that ends after the step at which the caller's function asks for it."""

from dataclasses import replace

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.methods.leapfrog import leapfrog
from symplectic_adjoint.replacement import functions
from tests.fields import SmallNet, start
from tests.gradients import EXACT
from tests.oracle import replay

T = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)
GRIDS = {
    "adaptive": {"rtol": 1e-6, "atol": 1e-6},
    "fixed": {"method": "rk4", "options": {"step_size": 0.1}},
    "landing": {"method": "dopri8", "rtol": 1e-6, "atol": 1e-6},
    "grid is t": {"method": "heun3"},
}


def how(grid, gradient, stop):
    given = {**GRIDS[grid], "gradient": gradient}
    if gradient == "mali":
        given.pop("method", None)
        given["options"] = {"step_size": 0.1}
    return {**given, "options": {**given.get("options", {}), "stop": stop}}


def after(limit):
    return lambda t, y: t.item() > limit


def gradients(loss, func, y0, t):
    inputs = [y0, t, *(x for x in func.parameters() if x.requires_grad)]
    return torch.autograd.grad(loss, inputs, materialize_grads=True)


def same(found, expected, digits=1e-11):
    """Compare values or gradients, by default to the rounding of some tens of steps."""
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=digits, atol=digits)


def oracle(func, y0, t, solution, reached, gradient):
    """Return the outputs up to the stop and the state there, by autograd through the steps of the reported grid."""
    grid, at_output = solution.grid, bool((t[:reached] == solution.stopped_t).any())
    if not at_output:  # the stop is one more time, a constant
        t = torch.cat([t[:reached], torch.tensor([solution.stopped_t], dtype=torch.float64)])
        last = torch.tensor([len(grid.t) - 1])
        assert grid.pinned_to[-1] == -1
        grid = replace(
            grid,
            pinned_to=torch.cat([grid.pinned_to[:-1], torch.tensor([reached])]),
            output_step=torch.cat([grid.output_step, last]),
            output_sigma=torch.cat([grid.output_sigma, torch.ones(1, dtype=torch.float64)]),
        )
    pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}.get(gradient)
    tableau = leapfrog(1.0) if gradient == "mali" else sa.METHODS[solution.stats.method]
    ys = replay(func, tableau, grid, y0, t[: len(grid.output_step)], pair)
    return ys[:reached], ys[-1]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("gradient", [*EXACT, "mali", "reversible"])
def test_outputs_up_to_the_stop_and_the_state_there_have_exact_gradients(gradient, grid, backwards):
    func, y0 = SmallNet(), start().requires_grad_()
    t = (T.flip(0) if backwards else T).clone().requires_grad_()
    stop = (lambda t, y: t.item() < 1.1) if backwards else after(0.9)
    solution = sa.solve(func, y0, t, **how(grid, gradient, stop))
    time = solution.stopped_t
    assert time < 1.1 if backwards else time > 0.9
    reached = int((t >= time if backwards else t <= time).sum())
    assert 1 < reached < len(t)
    assert solution.ys.shape[0] == len(t) and solution.ys[reached:].isnan().all()
    expected_ys, expected_y = oracle(func, y0, t, solution, reached, gradient)
    same([solution.ys[:reached], solution.stopped_y], [expected_ys, expected_y])
    found = gradients(solution.ys[:reached].square().sum() + solution.stopped_y.sin().sum(), func, y0, t)
    expected = gradients(expected_ys.square().sum() + expected_y.sin().sum(), func, y0, t)
    same(found, expected, 1e-9 if gradient in ("mali", "reversible") else 1e-11)  # reversing steps rounds
    assert (found[1][reached:] == 0).all()


@pytest.mark.parametrize("gradient", [*EXACT, "continuous"])
def test_a_stop_is_as_a_solve_up_to_there(gradient):
    """The steps of a fixed grid do not depend on where it ends, so nor may values and gradients."""
    func, y0, t = SmallNet(), start().requires_grad_(), torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)
    stopped = sa.solve(func, y0, t, **how("fixed", gradient, after(0.55)))
    assert stopped.stopped_t == pytest.approx(0.6)
    shorter = torch.tensor([0.0, 0.3, stopped.stopped_t], dtype=torch.float64)
    ys = sa.odeint(func, y0, shorter, gradient=gradient, **GRIDS["fixed"])
    same([stopped.ys[:2], stopped.stopped_y], [ys[:2], ys[2]])
    found = gradients(stopped.ys[1].square().sum() + stopped.stopped_y.square().sum(), func, y0, y0)
    same(found, gradients(ys[1:].square().sum(), func, y0, y0))


@pytest.mark.parametrize("gradient", EXACT)
def test_outputs_beyond_the_stop_have_no_gradient(gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    ys = sa.odeint(func, y0, T, **how("fixed", gradient, after(0.9)))
    (found,) = torch.autograd.grad(ys.nan_to_num().square().sum(), y0, retain_graph=True)
    beyond = torch.autograd.grad(ys[-1].sum(), y0)[0]
    assert found.isfinite().all() and found.any() and not beyond.any()


def test_stop_is_called_once_after_each_accepted_step_with_time_and_detached_state():
    calls = []

    def stop(t, y):
        calls.append((t, y))
        return False

    y0 = (start().requires_grad_(), start(2, 2))
    solution = sa.solve(lambda t, y: (torch.sin(t) * y[0], -y[1]), y0, T, rtol=1e-4, options={"stop": stop})
    assert solution.stopped_t is None and solution.stopped_y is None and not solution.ys[0].isnan().any()
    assert len(calls) == solution.stats.accepted
    ends = (solution.grid.t + solution.grid.h).tolist()
    assert [t.item() for t, _ in calls] == pytest.approx(ends, abs=1e-15)
    for t, y in calls:
        assert t.dtype == torch.float64 and t.ndim == 0
        assert isinstance(y, tuple) and [part.shape for part in y] == [part.shape for part in y0]
        assert not any(part.requires_grad for part in y)
    same([x[-1] for x in solution.ys], calls[-1][1])


@pytest.mark.parametrize("answer", [True, torch.tensor(True), torch.tensor([1.0]), 1])
def test_any_true_value_stops(answer):
    solution = sa.solve(SmallNet(), start(), T, options={"step_size": 0.1, "stop": lambda t, y: answer})
    assert solution.stopped_t == pytest.approx(0.1) and len(solution.grid.t) == 1


def test_a_stop_at_an_output_is_that_output():
    solution = sa.solve(SmallNet(), start(), T, method="rk4", options={"stop": lambda t, y: t >= 0.5})
    assert solution.stopped_t == 0.5
    same([solution.stopped_y], [solution.ys[2]], 0.0)
    assert solution.grid.output_step.tolist() == [-1, 0, 1] and solution.grid.pinned_to.tolist() == [1, 2]


def test_repeated_times_up_to_the_stop_are_repeated():
    t = torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    y0 = start().requires_grad_()
    solution = sa.solve(SmallNet(), y0, t, method="rk4", options={"step_size": 0.2, "stop": after(0.7)})
    assert solution.ys.isnan().flatten(1).all(1).tolist() == [False] * 4 + [True] * 2
    same([solution.ys[1], solution.ys[3]], [y0, solution.ys[2]])
    (t_bar,) = torch.autograd.grad(solution.ys[3].sum() + solution.stopped_y.sum(), t)
    assert t_bar[3] != 0 and (t_bar[4:] == 0).all()


def test_without_a_gradient_it_solves_once():
    func, calls = SmallNet(), []
    counted = lambda t, y: calls.append(1) or func(t, y)  # noqa: E731
    with torch.no_grad():
        solution = sa.solve(counted, start(), T, method="rk4", options={"step_size": 0.1, "stop": after(0.9)})
    assert len(calls) == solution.stats.f_calls_forward == 4 * solution.stats.accepted
    assert solution.ys[-1].isnan().all() and solution.stopped_y.isfinite().all()


def test_with_a_gradient_the_steps_are_repeated_and_counted():
    func, calls = SmallNet(), []
    counted = lambda t, y: calls.append(1) or func(t, y)  # noqa: E731
    solution = sa.solve(counted, start(), T, method="rk4", params=func, options={"step_size": 0.1, "stop": after(0.9)})
    assert len(calls) == solution.stats.f_calls_forward == 2 * 4 * solution.stats.accepted


def test_the_functions_of_replace_torchdiffeq_take_it():
    ys = functions.odeint(SmallNet(), start(), T, method="rk4", options={"step_size": 0.1, "stop": after(0.9)})
    assert ys[-1].isnan().all() and ys[1].isfinite().all()


def test_a_failure_before_the_stop_is_reported():
    func = lambda t, y: torch.where(t > 0.5, torch.nan, 1.0) * y  # noqa: E731
    given = {"method": "rk4", "options": {"step_size": 0.1, "stop": after(1.5)}}
    with pytest.raises(sa.NonFiniteError):
        sa.odeint(func, start(), T, **given)
    solution = sa.solve(func, start().requires_grad_(), T, on_failure="return", **given)
    assert isinstance(solution.failure, sa.NonFiniteError) and solution.stopped_t is None
    assert solution.ys[1].isfinite().all() and solution.ys[-1].isnan().all()


class TestErrors:
    def test_it_must_be_a_function(self):
        with pytest.raises(TypeError, match="option 'stop' must be a function"):
            sa.odeint(SmallNet(), start(), T, options={"stop": 1.0})

    def test_it_must_answer(self):
        with pytest.raises(TypeError, match="returns True or False, got None"):
            sa.odeint(SmallNet(), start(), T, options={"stop": lambda t, y: None})

    def test_it_excludes_an_event(self):
        with pytest.raises(sa.UnsupportedCombination, match="both end the solve"):
            sa.odeint(SmallNet(), start(), T[:2], event_fn=lambda t, y: t - 0.5, options={"stop": after(0.1)})

    @pytest.mark.parametrize("function", [sa.check_gradient, sa.compare_gradients, sa.measure_memory, sa.advise])
    def test_diagnostics_refuse_it_by_name(self, function):
        with pytest.raises(sa.UnsupportedCombination, match=f"{function.__name__}.*leave out option 'stop'"):
            function(SmallNet(), start(), T, options={"stop": after(0.1)})

    def test_a_dense_solution_refuses_it(self):
        with pytest.raises(sa.UnsupportedCombination, match="odeint_dense"):
            sa.odeint_dense(SmallNet(), start(), 0.0, 1.0, options={"stop": after(0.1)})


def test_a_stopped_solve_counts_its_rejected_steps():
    t = torch.tensor([0.0, 3.0], dtype=torch.float64)
    y0 = torch.tensor([1.0], dtype=torch.float64)
    given = {"rtol": 1e-6, "atol": 1e-6, "options": {"first_step": 1.0}}  # far too long for this tolerance
    whole = sa.solve(lambda t, y: -y, y0, t, **given).stats
    given["options"] = {**given["options"], "stop": lambda t, y: False}
    assert sa.solve(lambda t, y: -y, y0, t, **given).stats.rejected == whole.rejected > 0
