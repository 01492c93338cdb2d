"""Fully implicit methods: exact gradients with one f on the graph at a time, of the order that they declare.

test_implicit.py has every exact gradient with every one of these methods.
"""

import math

import pytest
import torch
from torch import nn

from symplectic_adjoint import GRADIENTS, METHODS, NeuralODE, odeint_dense, solve
from symplectic_adjoint.errors import UnsupportedCombination
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.gradients import EXACT, taking_turns
from tests.stiff_fields import CoupledState, StiffLinear, VanDerPol
from tests.symplectic_adjoint.gradients.test_implicit import assert_exact, assert_second_derivatives_exact

COUPLED = [name for name, method in METHODS.items() if method.coupled]
T = torch.tensor([0.0, 0.25, 0.3, 0.31, 0.8, 1.0], dtype=torch.float64)
STEP = {"step_size": 0.22}


# ---- exactness ----


@pytest.mark.parametrize(("gradient", "method"), taking_turns(COUPLED, EXACT))
def test_on_a_grid_that_is_t_every_time_has_its_gradient(method, gradient):
    """Every end is pinned, so that each h is a difference of two entries of t."""
    solution = assert_exact(SmallNet(), start(batch=2), T, method=method, gradient=gradient)
    assert solution.grid.pinned_to.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("linear", ["dense", "batched", "gmres"])
@pytest.mark.parametrize(("gradient", "method"), taking_turns(COUPLED, EXACT))
def test_every_linear_solver(method, gradient, linear):
    options = {**STEP, "linear": linear}
    solution = assert_exact(SmallNet(), start(batch=2), T, method=method, gradient=gradient, options=options)
    assert solution.stats.stages.linear == linear


@pytest.mark.parametrize("kind", ["function", "pair", "useless"])
@pytest.mark.parametrize(("gradient", "method"), taking_turns(COUPLED, ["symplectic", "backprop", "aca"]))
def test_a_preconditioner_changes_no_gradient(method, gradient, kind):
    func = StiffLinear()
    diagonal = func.A.detach().diagonal()

    def approximate(t, y, hg, r):
        assert y.shape == r.shape == (2, 3)
        return r / (1.0 - hg * diagonal)

    given = {"function": approximate, "pair": (approximate, approximate), "useless": lambda t, y, hg, r: 3.0 * r}[kind]
    options = {**STEP, "linear": "gmres", "preconditioner": given}
    assert_exact(func, start(batch=2), T, method=method, gradient=gradient, options=options)


@pytest.mark.parametrize(("gradient", "method", "kind"), taking_turns([("gl4", tuple), ("radauIIA3", dict)], EXACT))
def test_structured_states(method, kind, gradient):
    parts = (start(batch=2), torch.tensor([0.1, -0.2], dtype=torch.float64))
    y0 = parts if kind is tuple else dict(zip("ab", parts, strict=True))
    solution = assert_exact(CoupledState(), y0, T, method=method, gradient=gradient, options=dict(STEP))
    assert isinstance(solution.ys, kind)


@pytest.mark.parametrize(("gradient", "method"), taking_turns(COUPLED, EXACT))
def test_jumps_of_func(method, gradient):
    class Switched(SmallNet):
        def forward(self, t, y):
            return super().forward(t, y) + (3.0 if t >= 0.5 else -1.0)

    options = {**STEP, "jump_t": [0.5]}
    solution = assert_exact(Switched(), start(batch=2), T, method=method, gradient=gradient, options=options)
    assert solution.grid.open_end.any() and solution.grid.open_start.any()


@pytest.mark.parametrize(("gradient", "method"), taking_turns(COUPLED, EXACT))
def test_long_steps_of_a_stiff_problem(method, gradient):
    """h lambda is -300 at first: about that many times are rounding errors of the rate larger than those of y."""
    t = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    func = VanDerPol(1000.0)
    assert_exact(func, VanDerPol.START, t, method=method, gradient=gradient, options={"step_size": 0.1}, bound=1e-9)


@pytest.mark.parametrize("gradient", [name for name in EXACT if name != "backprop"])
@pytest.mark.parametrize(("method", "linear"), [("radauIIA3", "auto"), ("gl4", "gmres"), ("gl6", "dense")])
def test_second_derivatives_are_those_of_the_recorded_grid(method, linear, gradient):
    options = {"step_size": 0.5, "linear": linear}
    assert_second_derivatives_exact(T[::2], method=method, gradient=gradient, options=options)


def test_backprop_refuses_second_derivatives_and_others_refuse_third_ones():
    y0 = start(batch=2).requires_grad_()
    ys = solve(SmallNet(), y0, T[:2], method="gl4", gradient="backprop").ys
    with pytest.raises(UnsupportedCombination, match='need gradient="symplectic"'):
        torch.autograd.grad(weighted_loss(ys), [y0], create_graph=True)
    ys = solve(SmallNet(), y0, T[:2], method="gl4", gradient="symplectic").ys
    (first,) = torch.autograd.grad(weighted_loss(ys), [y0], create_graph=True)
    with pytest.raises(UnsupportedCombination, match="third derivatives"):
        torch.autograd.grad(first.square().sum(), [y0], create_graph=True)


@pytest.mark.parametrize("method", COUPLED)
def test_autocast_is_refused(method):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(UnsupportedCombination, match="autocast"):
        solve(SmallNet().float(), start().float(), T, method=method, options={"step_size": 0.25})


# ---- order, and what the methods are for ----


def forced(t, y):
    return torch.cos(t) * y * (1.0 - 0.3 * y) + torch.sin(2.0 * t)


@pytest.mark.parametrize("method", COUPLED)
def test_a_solution_and_its_gradient_converge_with_the_order_of_the_method(method):
    """func depends on t, so that a wrong node shows: with torchdiffeq's second node of gl4 the order is 1."""
    span = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def found(**how):
        y0 = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
        y = solve(forced, y0, span, **how).ys[-1]
        return torch.stack([y.detach(), torch.autograd.grad(y.sum(), y0)[0]])

    exact = found(method="dop853", rtol=1e-13, atol=1e-14)
    steps = (8, 16) if method == "gl6" else (16, 32)
    coarse, fine = ((found(method=method, options={"step_size": 1.0 / n}) - exact).abs() for n in steps)
    observed = torch.log2(coarse / fine).flatten().tolist()
    assert observed == pytest.approx([METHODS[method].order] * 2, abs=0.15)


@pytest.mark.parametrize("method", COUPLED)
def test_an_output_inside_a_step_is_of_order_s(method):
    """The error of the collocation polynomial in one step falls as h^(s + 1)."""
    errors = []
    for h in (0.05, 0.025):
        t = torch.tensor([0.0, 0.25 * h, h], dtype=torch.float64)
        y0 = torch.tensor([0.5], dtype=torch.float64)
        exact = solve(forced, y0, t, method="dop853", rtol=1e-13, atol=1e-15).ys[1]
        errors.append((solve(forced, y0, t, method=method, options={"step_size": h}).ys[1] - exact).abs().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(METHODS[method].stages + 1, abs=0.25)


@pytest.mark.parametrize("method", COUPLED)
def test_gauss_methods_conserve_a_quadratic_invariant_and_radau_methods_damp(method):
    def rotation(t, y):
        return torch.stack([3.0 * y[1], -3.0 * y[0]])

    y0, t = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor([0.0, 20.0], dtype=torch.float64)
    norm = solve(rotation, y0, t, method=method, options={"step_size": 0.25}).ys[-1].norm() / y0.norm()
    assert abs(norm - 1.0) < 1e-13 if method.startswith("gl") else norm < 1.0 - 1e-4


@pytest.mark.parametrize("method", COUPLED)
def test_only_an_l_stable_method_damps_what_is_fast_in_one_step(method):
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    end = solve(lambda t, y: -1e8 * y, y0, t, method=method).ys[-1].abs().item()
    assert end < 1e-6 if method.startswith("radau") else end == pytest.approx(1.0, abs=1e-6)


# ---- what it takes ----


class _Node(torch.autograd.Function):
    """The identity, with a node that says for how long the graph around it is held."""

    class Life:
        def __init__(self, counts):
            self._counts = counts
            counts["held"] += 1
            counts["most"] = max(counts["most"], counts["held"])

        def __del__(self):
            self._counts["held"] -= 1

    @staticmethod
    def forward(ctx, y, counts):
        ctx.life = _Node.Life(counts)
        return y.view_as(y)

    @staticmethod
    def backward(ctx, bar):
        return bar, None


class GraphsHeld(nn.Module):
    """Counts the calls of func whose graphs are held."""

    def __init__(self):
        super().__init__()
        self.net, self.counts = SmallNet(), {"held": 0, "most": 0}

    def forward(self, t, y):
        return self.net(t, _Node.apply(y, self.counts) if torch.is_grad_enabled() else y)


@pytest.mark.parametrize("linear", ["dense", "gmres"])
@pytest.mark.parametrize("method", COUPLED)
def test_symplectic_holds_the_graph_of_one_call_and_aca_those_of_a_step(method, linear):
    held = {}
    for gradient in ("symplectic", "stages", "revolve", "aca"):
        func = GraphsHeld()
        y0 = start(batch=2).requires_grad_()
        ys = solve(func, y0, T, method=method, gradient=gradient, options={**STEP, "linear": linear}).ys
        weighted_loss(ys).backward()
        held[gradient] = func.counts["most"]
        del ys
        assert func.counts["held"] == 0
    assert held == {"symplectic": 1, "stages": 1, "revolve": 1, "aca": METHODS[method].stages}


@pytest.mark.parametrize("method", COUPLED)
def test_calls_are_those_of_the_iterations_and_one_for_each_product(method):
    func, s, N = Counted(SmallNet()), METHODS[method].stages, 5
    options = {"step_size": 0.2, "linear": "dense"}
    solution = solve(func, start().requires_grad_(), T[[0, -1]], method=method, options=options)
    stats = solution.stats
    assert stats.accepted == N and stats.f_calls_forward == s * stats.stages.iterations == func.calls
    weighted_loss(solution.ys).backward()
    work = stats.stages_backward
    # The Jacobians of the transposed equations take a call each; those of the stages return values that are used.
    of_jacobians = stats.f_calls_backward - (s * work.iterations + work.products + s * N)
    assert of_jacobians % s == 0 and 0 <= of_jacobians <= work.jacobians
    assert stats.vjps_backward == s * N and stats.f_calls_forward + stats.f_calls_backward == func.calls


@pytest.mark.parametrize("method", COUPLED)
def test_no_product_of_a_held_graph_takes_a_call(method):
    func, s, N = Counted(SmallNet()), METHODS[method].stages, 5
    options = {"step_size": 0.2, "linear": "dense"}
    solution = solve(func, start().requires_grad_(), T[[0, -1]], method=method, options=options, gradient="aca")
    weighted_loss(solution.ys).backward()
    stats = solution.stats
    assert stats.f_calls_backward == s * (stats.stages_backward.iterations + N)


@pytest.mark.parametrize("method", COUPLED)
def test_a_linear_func_takes_one_jacobian_a_stage_and_two_iterations_a_step(method):
    solution = solve(StiffLinear(), start().requires_grad_(), T[[0, -1]], method=method, options={"step_size": 0.25})
    work, s = solution.stats.stages, METHODS[method].stages
    assert work.jacobians == s and work.factorizations == 1 and 4 <= work.iterations <= 8
    solution.ys.sum().backward()
    assert solution.stats.stages_backward.products <= 4 * 2 * s
    assert max(work.residual, solution.stats.stages_backward.residual) <= 16 * torch.finfo(torch.float64).eps


# ---- who else meets them ----


@pytest.mark.parametrize("gradient", [name for name in GRADIENTS if not GRADIENTS[name].takes_implicit])
@pytest.mark.parametrize("method", COUPLED)
def test_a_gradient_that_takes_no_implicit_method_is_refused_before_func_is_called(method, gradient):
    func = Counted(SmallNet())
    with pytest.raises(UnsupportedCombination, match=rf"gradient='{gradient}'.*: (use|leave method out)"):
        solve(func, start().requires_grad_(), T, method=method, gradient=gradient, options=dict(STEP))
    assert func.calls == 0


@pytest.mark.parametrize("method", COUPLED)
def test_dense_solutions_need_an_interpolant_as_accurate_as_the_steps(method):
    func, y0 = SmallNet(), start(batch=2)
    if METHODS[method].interpolates:
        dense = odeint_dense(func, y0, 0.0, 1.0, method=method, options={"step_size": 0.1})
        half = torch.tensor([0.0, 0.55], dtype=torch.float64)
        assert torch.allclose(dense(0.55), solve(func, y0, half, method="dopri5").ys[-1], atol=1e-4)
    else:
        with pytest.raises(UnsupportedCombination, match=r"no dense output .*: use 'kvaerno5' or 'radauIIA3'"):
            odeint_dense(func, y0, 0.0, 1.0, method=method, options={"step_size": 0.1})


@pytest.mark.parametrize("method", COUPLED)
def test_a_cubic_between_grid_points_is_refused(method):
    with pytest.raises(UnsupportedCombination, match=f"'interp' is 'cubic', but '{method}' lacks f at a step's start"):
        solve(SmallNet(), start(), T, method=method, options={**STEP, "interp": "cubic"})


def test_a_model_learns():
    model = NeuralODE(SmallNet(), method="radauIIA3", options={"step_size": 0.5})
    y0, goal = start(), torch.zeros(4, 3, dtype=torch.float64)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (model(y0, T[[0, -1]])[-1] - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
