"""func's first call, whose graph is searched: func is passed the y that autograd would pass it."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    T,
    assert_as_backprop,
    every_gradient,
    leaf,
    losing_gradients,
    solve,
)

Y0 = torch.linspace(0.5, 1.0, 3, dtype=torch.float64)
A = torch.eye(3, dtype=torch.float64) - 1.5
STATES = {
    "a tensor": (Y0, lambda y: y),
    "a tuple": ((Y0,), lambda state: state[0]),
    "half precision": (Y0.bfloat16(), lambda y: y),
}


def numpy_field(t, y):
    return torch.from_numpy(-np.sin(y.numpy()) * t.numpy())


class Running(nn.Module):
    """A func that keeps its arguments, as modules for logs and for normalization do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        self.log = []

    def forward(self, t, y):
        self.mean.mul_(0.9).add_(y)
        self.log.append(y)
        return -y


class Simulated(nn.Module):
    """A simulator in NumPy that a policy with parameters drives."""

    def __init__(self):
        super().__init__()
        self.policy = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, t, y):
        return torch.from_numpy(self.policy(y).detach().numpy() - y.numpy())


class TestWhereNoGradientIsWanted:
    @every_gradient
    def test_func_may_convert_y_to_numpy(self, gradient):
        ys = solve(numpy_field, Y0, gradient=gradient)
        torch.testing.assert_close(ys, solve(lambda t, y: -y.sin() * t, Y0, gradient=gradient))
        assert not ys.requires_grad

    @pytest.mark.parametrize("state", STATES)
    def test_y_requires_none_in_any_call(self, state):
        y0, part = STATES[state]
        seen = []

        def func(t, y):
            seen.append(part(y).requires_grad)
            return (-part(y),) if state == "a tuple" else -y

        sa.odeint(func, y0, T, **FIXED)
        assert seen
        assert not any(seen)

    def test_func_may_write_to_a_tensor_of_its_own(self):
        out = torch.empty(3, dtype=torch.float64)
        ys = sa.odeint(lambda t, y: torch.matmul(A, y, out=out).clone(), Y0, T, **FIXED)
        assert torch.equal(ys, sa.odeint(lambda t, y: A @ y, Y0, T, **FIXED))

    def test_func_may_branch_on_a_component(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sa.odeint(lambda t, y: -y * float(y[0]), Y0, T, **FIXED)

    def test_what_func_keeps_requires_none(self):
        func = Running()
        sa.odeint(func, Y0, T, **FIXED)
        assert not func.mean.requires_grad
        assert not any(y.requires_grad for y in func.log)
        copy.deepcopy(func)

    @every_gradient
    def test_func_may_detach_its_parameters_for_numpy(self, gradient):
        ys = solve(Simulated(), Y0, gradient=gradient)
        assert not ys.requires_grad
        assert ys.isfinite().all()

    @losing_gradients
    def test_a_parameter_that_it_then_uses_all_the_same_is_torchs_error(self, gradient):
        weight = leaf(3)

        def func(t, y):
            return torch.from_numpy(y.numpy()) * (1.0 if t < 0.5 else weight)

        with pytest.raises(RuntimeError, match=r"Can't call numpy"):
            solve(func, Y0, gradient=gradient, **FIXED)

    @pytest.mark.parametrize("y0", [Y0, Y0.clone().requires_grad_()], ids=["constant", "that requires a gradient"])
    def test_funcs_own_error_is_raised(self, y0):
        def func(t, y):
            raise RuntimeError("out of range")

        with pytest.raises(RuntimeError, match="out of range"):
            solve(func, y0, gradient="symplectic")

    def test_it_may_be_captured_where_that_is_possible(self):
        ys = sa.odeint(numpy_field, Y0, T, capture="auto", **FIXED)
        assert torch.equal(ys, sa.odeint(numpy_field, Y0, T, **FIXED))


def test_a_y0_that_requires_a_gradient_shows_in_the_first_call():
    with pytest.raises(RuntimeError, match=r"Can't call numpy"):
        solve(numpy_field, Y0.clone().requires_grad_(), gradient="symplectic")


def test_a_y_changed_in_place_is_refused_and_y0_is_not_touched():
    y0 = Y0.clone()
    with pytest.raises(ValueError, match="func changed y in place"):
        sa.odeint(lambda t, y: y.mul_(-1.0), y0, T, **FIXED)
    assert torch.equal(y0, Y0)


def hidden(x):
    """Return a function that reaches x where no search of names does."""
    held = [[[[[[[[[[x]]]]]]]]]]
    return lambda: held[0][0][0][0][0][0][0][0][0][0]


USES = {
    "in a product": lambda w, y: -w * y,
    "as the value": lambda w, y: w,
    "in a sum with what needs no gradient": lambda w, y: w + 0.0 * y.sum().item(),
}


class TestALeafThatOnlyTheFirstCallShows:
    """Where nothing that is known before the call requires a gradient."""

    @every_gradient
    @pytest.mark.parametrize("use", USES)
    def test_gets_its_gradient(self, use, gradient):
        weight = leaf(3)
        get = hidden(weight)
        assert_as_backprop(
            lambda g, p: solve(lambda t, y: USES[use](get(), y), Y0, gradient=g, **FIXED), (weight,), gradient
        )

    @losing_gradients
    def test_costs_one_call_more(self, gradient):
        def calls(y0):
            get, calls = hidden(leaf(3)), []

            def func(t, y):
                calls.append(t)
                return get() * y

            stats = sa.solve(func, y0, T, gradient=gradient, **FIXED).stats
            assert stats.f_calls_forward == len(calls)
            return len(calls)

        assert calls(Y0) == calls(Y0.clone().requires_grad_()) + 1

    @every_gradient
    def test_in_a_dense_solution(self, gradient):
        weight = leaf(3)
        get = hidden(weight)

        def at_times(gradient, params):
            solution = sa.odeint_dense(lambda t, y: get() * y, Y0, 0.0, 1.0, gradient=gradient)
            return solution(torch.tensor([0.3, 0.7], dtype=torch.float64))

        assert_as_backprop(at_times, (weight,), gradient)

    @losing_gradients
    def test_with_an_event_or_a_stop(self, gradient):
        weight = leaf(3)
        get = hidden(weight)

        def func(t, y):
            return get() ** 2 * y

        def until(gradient, params):
            t = torch.tensor([0.0, 10.0], dtype=torch.float64)
            return sa.odeint(func, Y0, t, event_fn=lambda t, y: y.sum() - 3.0, gradient=gradient, **FIXED)[1]

        def stopped(gradient, params):
            options = {**FIXED["options"], "stop": lambda t, y: bool(y.sum() > 2.4)}
            t = torch.tensor([0.0, 10.0], dtype=torch.float64)
            found = sa.solve(func, Y0, t, method="rk4", options=options, gradient=gradient)
            return found.stopped_y.expand(2, -1)

        assert_as_backprop(until, (weight,), gradient)
        assert_as_backprop(stopped, (weight,), gradient)

    @losing_gradients
    def test_behind_a_tensor_computed_from_it_is_refused_as_with_any_y0(self, gradient):
        weight = leaf(3)
        get = hidden(weight * 2.0)
        with pytest.raises(sa.LostGradient, match="holds it where it is not found"):
            solve(lambda t, y: get() * y, Y0, gradient=gradient)

    @pytest.mark.parametrize("keywords", [{}, {"capture": True}, {"capture": "auto"}], ids=str)
    def test_is_none_under_no_grad(self, keywords):
        get = hidden(leaf(3))
        with torch.no_grad():
            assert not sa.odeint(lambda t, y: get() * y, Y0, T, **FIXED, **keywords).requires_grad

    @losing_gradients
    def test_is_not_one_that_func_makes(self, gradient):
        def func(t, y):
            return torch.ones(3, dtype=torch.float64, requires_grad=True)

        assert not solve(func, Y0, gradient=gradient).requires_grad

    def test_is_found_after_a_jump_too(self):
        weight = leaf(3)
        get = hidden(weight)
        keywords = {"options": {"jump_t": torch.tensor([0.5], dtype=torch.float64)}}

        def func(t, y):
            return -y if t < 0.5 else get() * y

        assert_as_backprop(lambda g, p: solve(func, Y0, gradient=g, **keywords), (weight,), "symplectic")


def test_a_net_in_no_module_of_func_gets_its_gradient_from_a_constant_y0():
    net = SmallNet()
    get = hidden(net)
    inputs = tuple(net.parameters())
    assert_as_backprop(lambda g, p: solve(lambda t, y: get()(t, y), Y0, gradient=g, **FIXED), inputs, "symplectic")
