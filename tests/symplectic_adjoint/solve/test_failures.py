"""A solve that fails reports how far it got and what stopped it, and the outputs that it reached can be kept."""

import math

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.2, 0.4, 0.9, 1.0], dtype=torch.float64)
BREAKS_AT = 0.65
REACHED = 3  # entries of T before that
ROUNDING = 1e-12  # as in test_exactness
APPROXIMATE = 1e-2  # the continuous gradient at these tolerances; that of a missing output would be off by 1
GRIDS = {
    "adaptive": {"rtol": 1e-5, "atol": 1e-5, "options": {"min_step": 1e-3}},
    "adaptive-land": {"rtol": 1e-5, "atol": 1e-5, "options": {"min_step": 1e-3, "outputs": "land"}},
    "step-size": {"method": "rk4", "options": {"step_size": 0.05}},
    "grid-is-t": {"method": "rk4"},
}

COARSE = {"rtol": 1e-3, "atol": 1e-3}  # a singularity is reached in fewer steps

every_gradient = pytest.mark.parametrize("gradient", STANDARD)
# Steps on the graph and off it report the same error.
both_passes = pytest.mark.parametrize("gradient", ["backprop", "symplectic"])
every_grid = pytest.mark.parametrize("grid", GRIDS)


class Breaking(nn.Module):
    """A network that returns `value` for one component of one sample after a time. Counts its calls and steps."""

    def __init__(self, at=BREAKS_AT, value=math.nan):
        super().__init__()
        self.net = SmallNet()
        self.at, self.value = at, value
        self.calls = self.accepted = self.rejected = 0

    def callback_accept_step(self, t, y, dt):
        self.accepted += 1

    def callback_reject_step(self, t, y, dt):
        self.rejected += 1

    def forward(self, t, y):
        self.calls += 1
        k = self.net(t, y)
        if t > self.at:
            k = k.clone()
            k[2, 1] = self.value
        return k


def failure_of(func, y0, t=T, **keywords):
    with pytest.raises(sa.SolverError) as caught:
        sa.odeint(func, y0, t, **keywords)
    return caught.value


def squares(t, state):
    """x' = x^2 is infinite at 1 / x(0), z' = z / 10 never."""
    return {"x": state["x"].square(), "deep": [0.1 * state["deep"][0]]}


def nested_start():
    return {
        "x": torch.tensor([[1.0, 0.5], [0.25, 2.0]], dtype=torch.float64),
        "deep": [torch.ones(3, dtype=torch.float64)],
    }


class TestWhatTheErrorSays:
    @both_passes
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_of_a_value_that_is_not_finite(self, value, gradient):
        func, y0 = Breaking(value=value), start().requires_grad_()
        error = failure_of(func, y0, gradient=gradient, rtol=1e-5, atol=1e-5)
        assert type(error) is sa.NonFiniteError
        assert (error.part, error.component, error.sample) == (None, (2, 1), 2)
        # Steps were shortened until the time stood still.
        assert error.t == pytest.approx(BREAKS_AT, rel=1e-12)
        assert 0 < error.step_size < 1e-12
        assert (error.accepted, error.rejected, error.f_calls) == (func.accepted, func.rejected, func.calls)
        assert f"component (2, 1) is {value}" in str(error)
        assert error.state.shape == (4, 3) and torch.isfinite(error.state).all() and not error.state.requires_grad

    @both_passes
    def test_of_a_value_that_is_not_finite_on_a_fixed_grid(self, gradient):
        func, y0 = Breaking(), start().requires_grad_()
        error = failure_of(func, y0, gradient=gradient, **GRIDS["step-size"])
        assert type(error) is sa.NonFiniteError
        assert (error.component, error.sample) == ((2, 1), 2)
        assert (error.t, error.step_size) == (pytest.approx(0.65), pytest.approx(0.05))
        # 13 steps of 4 stages, and the stages of the step that failed
        assert (error.accepted, error.rejected, error.f_calls) == (13, 0, 13 * 4 + 4)
        assert "t = 0.675 (step 13, stage 2)" in str(error)

    @every_grid
    def test_holds_the_last_state(self, grid):
        func = Breaking()
        error = failure_of(func, start(), **GRIDS[grid])
        there = torch.tensor([0.0, error.t], dtype=torch.float64)
        expected = sa.odeint(func.net, start(), there, rtol=1e-9, atol=1e-9)[-1]
        # The accuracy of the solve; its steps are 0.2 where the grid is t.
        assert torch.allclose(error.state, expected, rtol=1e-3, atol=1e-4)

    @both_passes
    @pytest.mark.parametrize("direction", [1.0, -1.0])
    def test_of_a_step_size_that_vanishes(self, direction, gradient):
        y0 = torch.tensor([[1.0, 0.5], [0.25, 4.0]], dtype=torch.float64, requires_grad=True)
        error = failure_of(lambda t, y: direction * y.square(), y0, direction * T, gradient=gradient, **COARSE)
        assert type(error) is sa.StepSizeUnderflow
        # y = 1 / (1/y0 - |t|) in the component that starts at 4; the tolerance moves the singularity a little.
        assert error.t == pytest.approx(direction * 0.25, rel=1e-3)
        assert 0 < direction * error.step_size < 1e-14
        assert (error.component, error.sample) == ((1, 1), 1)
        assert error.accepted > 50 and error.rejected > 0 and error.f_calls > 6 * error.accepted
        assert error.state[1, 1] > 1e10
        assert torch.allclose(error.state[0], torch.tensor([4 / 3, 4 / 7]).double(), rtol=1e-3)

    @both_passes
    def test_of_too_many_steps(self, gradient):
        func, y0 = Breaking(at=math.inf), start().requires_grad_()
        error = failure_of(func, y0, gradient=gradient, rtol=1e-9, atol=1e-9, options={"max_num_steps": 7})
        assert type(error) is sa.TooManySteps
        assert 0.0 < error.t < 1.0 and error.step_size > 0
        assert error.accepted + error.rejected == 7
        assert (error.accepted, error.rejected, error.f_calls) == (func.accepted, func.rejected, func.calls)
        assert error.component is not None and error.sample == error.component[0]
        assert error.state.shape == (4, 3)

    def test_of_a_grid_that_is_too_long_was_not_begun(self):
        options = {"step_size": 0.01, "max_num_steps": 7}
        for on_failure in ("raise", "return"):  # there is nothing to return
            error = failure_of(Breaking(), start(), method="rk4", options=options, on_failure=on_failure)
            assert type(error) is sa.TooManySteps
            assert (error.t, error.step_size, error.state, error.part, error.component) == (None,) * 5
            assert (error.accepted, error.rejected, error.f_calls) == (0, 0, 0)

    @both_passes
    @pytest.mark.parametrize(
        ("keywords", "worst_is_known"),
        [
            ({"rtol": 1e-5, "atol": 1e-5, "options": {"max_num_steps": 20}}, True),
            ({"method": "rk4", "options": {"step_size": 0.1, "max_num_steps": 20}}, False),
        ],
    )
    def test_of_an_event_that_does_not_occur(self, keywords, worst_is_known, gradient):
        func, y0 = Breaking(at=math.inf), start().requires_grad_()
        error = failure_of(func, y0, T[:2], event_fn=lambda t, y: t + 1.0, gradient=gradient, **keywords)
        assert type(error) is sa.EventNotFound
        assert error.accepted + error.rejected == 20
        assert (error.accepted, error.rejected, error.f_calls) == (func.accepted, func.rejected, func.calls)
        assert f"up to t = {error.t:.9g}, in 20 steps" in str(error)
        assert (error.component is not None) == worst_is_known  # fixed steps have no error estimate
        assert error.state.shape == (4, 3)

    @both_passes
    @pytest.mark.parametrize(
        ("grid", "kind", "late"),
        # Fixed steps jump over the singularity and take a few more to overflow.
        [(COARSE, sa.StepSizeUnderflow, 1e-3), (GRIDS["step-size"], sa.NonFiniteError, 0.2)],
    )
    def test_of_a_structured_state_names_the_part(self, grid, kind, late, gradient):
        y0 = nested_start()
        y0["x"].requires_grad_()
        error = failure_of(squares, y0, gradient=gradient, **grid)
        assert type(error) is kind
        assert (error.part, error.component, error.sample) == ("['x']", (1, 1), 1)
        assert error.t == pytest.approx(0.5, abs=late)
        assert list(error.state) == ["x", "deep"] and type(error.state["deep"]) is list
        assert error.state["x"].shape == (2, 2) and not error.state["x"].requires_grad
        # z grows by a tenth
        assert torch.allclose(error.state["deep"][0], torch.full((3,), math.exp(0.1 * error.t)).double(), rtol=1e-4)

    def test_of_a_number_has_no_sample(self):
        y0 = {"x": torch.tensor(2.0, dtype=torch.float64), "deep": [torch.ones(3, dtype=torch.float64)]}
        error = failure_of(squares, y0, **COARSE)
        assert (error.part, error.component, error.sample) == ("['x']", (), None)

    def test_of_y0_itself_names_the_part_before_func_is_called(self):
        y0 = nested_start()
        y0["deep"][0][2] = math.inf
        func = Breaking()
        error = failure_of(func, y0)
        assert type(error) is sa.NonFiniteError and func.calls == 0
        assert (error.part, error.component, error.t) == ("['deep'][0]", (2,), None)
        assert error.sample is None  # one dimension is not a batch

    def test_is_caught_as_a_runtime_error_by_one_name(self):
        kinds = (sa.NonFiniteError, sa.StepSizeUnderflow, sa.TooManySteps, sa.EventNotFound)
        assert all(issubclass(kind, sa.SolverError) and issubclass(kind, RuntimeError) for kind in kinds)


def kept(func, y0, t, gradient, grid):
    return sa.solve(func, y0, t, gradient=gradient, on_failure="return", **GRIDS[grid])


class TestWhatWasReached:
    """on_failure="return": outputs before the failure are those of a solve that does not fail."""

    @every_grid
    @every_gradient
    def test_has_the_same_bits_and_nan_beyond(self, gradient, grid):
        healthy = sa.odeint(Breaking(at=math.inf), start(), T, gradient=gradient, **GRIDS[grid])
        solution = kept(Breaking(), start().requires_grad_(), T, gradient, grid)
        assert torch.equal(solution.ys[:REACHED], healthy[:REACHED])
        assert torch.isnan(solution.ys[REACHED:]).all()
        assert type(solution.failure) is sa.NonFiniteError and solution.failure.component == (2, 1)
        assert len(solution.grid.t) == solution.failure.accepted
        assert solution.t is not None and len(solution.t) == len(T)

    @every_grid
    @every_gradient
    def test_has_the_gradient_of_a_solve_that_does_not_fail(self, gradient, grid):
        def grads(func, gradient):
            y0, t = start().requires_grad_(), T.clone().requires_grad_()
            ys = kept(func, y0, t, gradient, grid).ys
            return torch.autograd.grad(weighted_loss(ys[:REACHED]), [y0, t, *func.parameters()], allow_unused=True)

        expected = grads(Breaking(at=math.inf), "backprop")
        got = grads(Breaking(), gradient)
        bound = ROUNDING if gradient in EXACT else APPROXIMATE
        errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
        if gradient == "continuous" and grid == "grid-is-t":
            bound = 0.1  # steps of 0.2
        assert max(errors) < bound, errors

    @every_gradient
    @pytest.mark.parametrize("grid", ["adaptive", "step-size"])
    def test_ignores_the_cotangents_of_outputs_that_were_not(self, grid, gradient):
        def grads(weight_beyond):
            func, y0 = Breaking(), start().requires_grad_()
            ys = kept(func, y0, T, gradient, grid).ys
            weights = torch.ones_like(ys)
            weights[REACHED:] = weight_beyond
            return torch.autograd.grad(ys, [y0, func.net.twice, func.net.inner.weight], weights)

        # A loss that squares outputs before it masks them has NaN cotangents.
        for a, b in zip(grads(math.nan), grads(0.0), strict=True):
            assert torch.equal(a, b)

    @every_gradient
    @pytest.mark.parametrize("grid", ["adaptive", "step-size", "grid-is-t"])
    def test_is_y0_where_f_is_bad_from_the_start(self, grid, gradient):
        func, y0, t = Breaking(at=-1.0), start().requires_grad_(), T.clone().requires_grad_()
        solution = kept(func, y0, t, gradient, grid)
        assert torch.equal(solution.ys[0], y0) and torch.isnan(solution.ys[1:]).all()
        assert solution.failure.accepted == 0 and solution.failure.t == 0.0
        of_y0, of_t = torch.autograd.grad(solution.ys[0].sum(), [y0, t], allow_unused=True)
        assert torch.equal(of_y0, torch.ones_like(y0))
        if gradient in EXACT:  # the continuous one is f at t[0] times its cotangent: NaN times zero
            assert of_t is None or not of_t.any()

    @every_gradient
    def test_is_available_without_a_gradient(self, gradient):
        with torch.no_grad():
            ys = sa.odeint(Breaking(), start(), T, gradient=gradient, on_failure="return", **GRIDS["adaptive"])
        assert torch.isfinite(ys[:REACHED]).all() and torch.isnan(ys[REACHED:]).all() and not ys.requires_grad

    @every_gradient
    def test_is_everything_where_nothing_fails(self, gradient):
        solution = kept(Breaking(at=math.inf), start().requires_grad_(), T, gradient, "adaptive")
        assert solution.failure is None and torch.isfinite(solution.ys).all()

    @every_gradient
    def test_with_too_few_steps_is_kept_too(self, gradient):
        def solution(gradient, **options):
            func, y0 = SmallNet(), start().requires_grad_()
            solved = sa.solve(
                func, y0, T, rtol=1e-7, atol=1e-7, gradient=gradient, on_failure="return", options=options
            )  # fmt: skip
            loss = weighted_loss(solved.ys[:REACHED])
            return solved, torch.autograd.grad(loss, [y0, func.twice, func.outer.weight])

        healthy, expected = solution("backprop")
        steps = len(healthy.grid.t) - 2
        assert healthy.grid.t[steps] > T[REACHED - 1]
        solved, got = solution(gradient, max_num_steps=steps)
        assert type(solved.failure) is sa.TooManySteps
        assert torch.equal(solved.ys[:REACHED], healthy.ys[:REACHED]) and torch.isnan(solved.ys[-1]).all()
        bound = ROUNDING if gradient in EXACT else APPROXIMATE
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound

    @every_gradient
    @pytest.mark.parametrize(
        "grid", [{"rtol": 1e-5, "atol": 1e-5, "options": {"max_num_steps": 30}}, GRIDS["step-size"]]
    )
    def test_of_a_structured_state_has_its_structure(self, grid, gradient):
        def solution(gradient):
            y0 = nested_start()
            y0["x"].requires_grad_()
            solved = sa.solve(squares, y0, T, gradient=gradient, on_failure="return", **grid)
            loss = weighted_loss(solved.ys["x"][:2]) + weighted_loss(solved.ys["deep"][0][:2])
            return solved, torch.autograd.grad(loss, y0["x"])[0]

        solved, of_x = solution(gradient)
        assert solved.failure.part == "['x']" and type(solved.ys["deep"]) is list
        for part in (solved.ys["x"], solved.ys["deep"][0]):
            assert torch.isfinite(part[:REACHED]).all() and torch.isnan(part[REACHED:]).all()
        _, expected = solution("backprop")
        assert relative_error(of_x, expected) < (ROUNDING if gradient in EXACT else APPROXIMATE)
        # x(0.2) = 1 / (1 / x(0) - 0.2), whose slope in x(0) is (x(0.2) / x(0))^2
        x0 = nested_start()["x"].requires_grad_()
        outputs = torch.stack([x0, 1.0 / (1.0 / x0 - 0.2)])
        assert torch.allclose(of_x, torch.autograd.grad(weighted_loss(outputs), x0)[0], rtol=1e-3)

    @every_gradient
    @pytest.mark.parametrize(
        "keywords",
        [
            {"rtol": 1e-5, "atol": 1e-5, "options": {"max_num_steps": 20}},
            {"method": "rk4", "options": {"step_size": 0.1, "max_num_steps": 20}},
        ],
    )
    def test_without_an_event_is_the_start(self, keywords, gradient):
        func, y0 = Breaking(at=math.inf), start().requires_grad_()
        solution = sa.solve(
            func, y0, T[:2], event_fn=lambda t, y: t + 1.0, gradient=gradient, on_failure="return", **keywords
        )
        assert type(solution.failure) is sa.EventNotFound
        assert torch.isnan(solution.event_t) and torch.isnan(solution.t[1]) and solution.t[0] == T[0]
        assert torch.equal(solution.ys[0], y0) and torch.isnan(solution.ys[1]).all()
        (of_y0,) = torch.autograd.grad(solution.ys[0].sum(), y0)
        assert torch.equal(of_y0, torch.ones_like(y0))

    @every_gradient
    def test_with_an_event_after_the_failure_is_the_start(self, gradient):
        event_t, ys = sa.odeint(
            Breaking(), start().requires_grad_(), T[:2], event_fn=lambda t, y: 0.9 - t, gradient=gradient,
            on_failure="return", **GRIDS["adaptive"],
        )  # fmt: skip
        assert torch.isnan(event_t) and torch.isnan(ys[1]).all() and torch.equal(ys[0], start())
        event_t, ys = sa.odeint(
            Breaking(), start().requires_grad_(), T[:2], event_fn=lambda t, y: 0.5 - t, gradient=gradient,
            on_failure="return", **GRIDS["adaptive"],
        )  # fmt: skip
        assert event_t.item() == pytest.approx(0.5, abs=1e-12) and torch.isfinite(ys).all()


def test_an_unknown_on_failure_is_refused():
    with pytest.raises(ValueError, match="on_failure must be 'raise' or 'return', got 'ignore'"):
        sa.odeint(Breaking(), start(), T, on_failure="ignore")


@every_gradient
def test_an_error_inside_func_is_not_a_failure_of_the_solve(gradient):
    def func(t, y):
        if t > BREAKS_AT:
            raise ZeroDivisionError("func's own")
        return -y

    with pytest.raises(ZeroDivisionError, match="func's own"):
        sa.odeint(func, start().requires_grad_(), T, gradient=gradient, on_failure="return")
