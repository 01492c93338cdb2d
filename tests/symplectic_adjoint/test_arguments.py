"""Bad arguments are refused by name, if possible before func is called."""

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.gradients import STANDARD

T = torch.tensor([0.0, 1.0], dtype=torch.float64)


def never_called(t, y):
    raise AssertionError("func was called")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "dopri6"}, r"unknown method 'dopri6', did you mean 'dopri"),
        ({"gradient": "simplectic"}, r"unknown gradient 'simplectic', did you mean 'symplectic'"),
        ({"options": {"dt0": 0.1}}, r"unknown option 'dt0', did you mean 'first_step'"),
        ({"options": {"Max-Num-Steps": 9}}, r"unknown option 'Max-Num-Steps', did you mean 'max_num_steps'"),
        ({"options": {"stepsize": 0.1}}, r"unknown option 'stepsize', did you mean 'step_size'"),
        ({"options": {"frist_step": 0.1}}, r"unknown option 'frist_step', did you mean 'first_step'"),
        ({"options": {"dtype": torch.float32}}, r"option 'dtype' .* must be torch.float64, got torch.float32"),
        ({"options": {"step_size": -0.1}}, r"option 'step_size' must be a positive number"),
        ({"options": {"step_size": 0.1, "grid_points": [0.0, 1.0]}}, r"both give the grid"),
        ({"options": {"grid_points": [0.0, 0.5]}}, r"must start at t\[0\] = 0 and end at t\[-1\] = 1"),
        ({"options": {"grid_points": [0.0, 0.7, 0.5, 1.0]}}, r"must run strictly from t\[0\]"),
        ({"options": {"grid_points": T.clone().requires_grad_()}}, r"times that require a gradient"),
        ({"options": {"step_size": 0.1, "first_step": 0.1}}, r"'first_step' belongs to adaptive step sizes"),
        ({"method": "rk4", "options": {"controller": "PI"}}, r"'controller' belongs to adaptive .* method='rk4'"),
        ({"options": {"controller": "PID"}}, r"'controller' must be 'I' or 'PI'"),
        ({"options": {"safety": 1.5}}, r"'safety' must lie between 0, not included, and 1, included, got 1.5"),
        ({"options": {"ifactor": 0.5}}, r"'ifactor' must lie between 1 and inf, both included, got 0.5"),
        ({"options": {"outputs": "guess"}}, r"'outputs' must be 'interpolate' or 'land'"),
        ({"method": "rk4", "options": {"interp": "quintic"}}, r"'interp' must be 'linear' or 'cubic', got 'quintic'"),
        ({"options": {"max_num_steps": 0}}, r"'max_num_steps' must be a positive integer"),
        ({"options": {"min_step": 0.5, "max_step": 0.1}}, r"'max_step' is 0.1, below min_step"),
        ({"options": {"dfactor": 1.5}}, r"'dfactor' must lie between 0 and 1, both included, got 1.5"),
        ({"options": {"dfactor": -0.5}}, r"'dfactor' must be a positive number or zero"),
        ({"rtol": -1e-9}, r"rtol must be at least 0 and finite, got -1e-09"),
        ({"atol": -1e-3}, r"atol must be at least 0"),
        ({"rtol": float("nan")}, r"rtol must be at least 0 and finite, got nan"),
        ({"t": torch.zeros(2, 2)}, r"t must be a 1-D floating point tensor"),
        ({"t": torch.tensor([0, 1])}, r"t must be a 1-D floating point tensor"),
        ({"t": torch.tensor([0.0, 2.0, 1.0])}, r"got 0 first, then t\[1\] = 2 and t\[2\] = 1: sort the times"),
        ({"t": torch.tensor([0.0, 0.0, 2.0, 1.0])}, r"t must be increasing or decreasing throughout"),
        ({"t": torch.tensor([0.0, float("inf")])}, r"t\[1\] must be finite, got inf"),
        ({"y0": torch.tensor([1, 2])}, r"y0 must be a floating point or complex tensor, got torch.int64"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named_before_func_is_called(change, message):
    arguments = {"y0": start(), "t": T, **change}
    with pytest.raises(ValueError, match=message):
        sa.odeint(never_called, arguments.pop("y0"), arguments.pop("t"), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": [0.0, 1.0]}, "t must be a tensor"),
        ({"y0": (start(), None)}, r"y0\[1\] must be a tensor \(or a tuple, list or dict of tensors\), got NoneType"),
        ({"y0": {"x": "start"}}, r"y0\['x'\] must be a tensor"),
        ({"event_fn": 3}, r"event_fn must be callable as event_fn\(t, y\), got int"),
        ({"rtol": (1e-3, (1e-3, 1e-4))}, "rtol must be a number, a tensor or a list of numbers, as y0 is one tensor"),
        ({"rtol": "1e-3"}, "rtol must be a number"),
        ({"gradient": sa.Symplectic}, r"gradient must be a name in GRADIENTS or an object such as Symplectic\(\)"),
        ({"params": torch.ones(2)}, "params must be a sequence of tensors"),
        ({"params": 3}, "params must be a sequence of tensors or a module, got int"),
        ({"params": [1.0]}, r"params\[0\] must be a tensor, got float"),
        ({"options": {"norm": "rms"}}, "option 'norm' must be a function"),
        ({"options": {"first_step": True}}, "option 'first_step' must be a number"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(change, message):
    arguments = {"y0": start(), "t": T, **change}
    with pytest.raises(TypeError, match=message):
        sa.odeint(never_called, arguments.pop("y0"), arguments.pop("t"), **arguments)


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t, y: y[:1], r"shape \(4, 3\).*got shape \(1, 3\)"),
        (lambda t, y: y + 0j, r"torch.float64.*got shape \(4, 3\), torch.complex128"),
        (lambda t, y: y.int(), r"torch.float64.*got shape \(4, 3\), torch.int32"),
        (lambda t, y: y.to("meta"), r"got shape \(4, 3\), torch.float64, meta"),
    ],
)
def test_func_output_unlike_y_is_refused_not_broadcast(wrong, message, gradient):
    with pytest.raises(ValueError, match=message):
        sa.odeint(wrong, start().requires_grad_(), T, gradient=gradient)


def test_func_that_returns_no_tensor_is_refused():
    with pytest.raises(TypeError, match="func must return a tensor like y, got tuple"):
        sa.odeint(lambda t, y: (y,), start(), T)


def test_nan_in_y0_is_named():
    y0 = start()
    y0[2, 1] = float("nan")
    with pytest.raises(sa.NonFiniteError, match=r"y0 is not finite: component \(2, 1\) is nan"):
        sa.odeint(never_called, y0, T)


def turns_nan(t, y):
    k = -y
    if t > 0.5:
        k = k.clone()
        k[3, 0] = float("nan")
    return k


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize(
    ("method", "options"), [("dopri5", None), ("dopri5", {"step_size": 0.125}), ("rk4", {"step_size": 0.125})]
)
def test_nan_in_f_is_reported_with_time_step_and_component(method, options, gradient):
    with pytest.raises(
        sa.NonFiniteError, match=r"not finite at t = 0\.5\d* \(step \d+, stage \d\): component \(3, 0\) is nan"
    ):
        sa.odeint(turns_nan, start().requires_grad_(), T, method=method, options=options, gradient=gradient)


def test_a_trial_step_that_overflows_is_shortened_not_fatal():
    def func(t, y):
        return torch.where(y.abs() < 2.0, -50.0 * y, torch.full_like(y, float("inf")))

    ys = sa.odeint(func, torch.ones(3, dtype=torch.float64), T, options={"first_step": 1.0}, rtol=1e-6, atol=1e-8)
    assert torch.isfinite(ys).all()


def test_too_many_steps_reports_how_far_the_solve_got():
    with pytest.raises(sa.TooManySteps, match=r"max_num_steps=5 steps were tried .* t is 0\.\d+, not yet 1"):
        sa.odeint(SmallNet(), start(), T, rtol=1e-12, atol=1e-12, options={"max_num_steps": 5})
    with pytest.raises(sa.TooManySteps, match=r"the grid has 100 steps"):
        sa.odeint(never_called, start(), T, method="rk4", options={"step_size": 0.01, "max_num_steps": 99})


def test_a_singularity_ends_in_step_size_underflow_or_a_named_overflow():
    with pytest.raises(sa.SolverError, match=r"no longer advances t = |not finite"):
        sa.odeint(lambda t, y: y.square(), torch.ones(1, dtype=torch.float64), 2 * T, rtol=1e-6, atol=1e-8)


class TestATensorOutsideFunc:
    @pytest.mark.parametrize("gradient", STANDARD)
    def test_may_be_passed_in_params(self, gradient):
        weight = (0.1 * torch.ones(3, 3, dtype=torch.float64)).requires_grad_()
        sa.odeint(lambda t, y: y @ weight, start(), T, params=(weight,), gradient=gradient).sum().backward()
        assert weight.grad is not None and weight.grad.abs().sum() > 0

    @pytest.mark.parametrize("gradient", STANDARD)
    def test_is_passed_on_through_a_tensor_that_is_no_leaf(self, gradient):
        source = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        weight = source * torch.eye(3, dtype=torch.float64)
        sa.odeint(lambda t, y: y @ weight, start(), T, params=(weight,), gradient=gradient).sum().backward()
        # y(1) = e^0.3 y0
        expected = (start() * torch.exp(source.detach())).sum()
        assert source.grad is not None
        assert torch.allclose(source.grad, expected, rtol=1e-6)

    def test_is_not_reported_for_frozen_parameters(self):
        net = SmallNet().requires_grad_(False)
        y0 = start().requires_grad_()
        sa.odeint(net, y0, T).sum().backward()
        assert y0.grad is not None and all(p.grad is None for p in net.parameters())

    def test_does_not_occur_with_a_bound_method(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = SmallNet()

            def field(self, t, y):
                return self.net(t, y)

        model = Model()
        sa.odeint(model.field, start(), T).sum().backward()
        assert model.net.inner.weight.grad is not None


def test_func_that_changes_y_in_place_is_refused():
    with pytest.raises(ValueError, match="func changed y in place"):
        sa.odeint(lambda t, y: y.mul_(0.5), start(), T)


@pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "backprop"])
@pytest.mark.parametrize("victim", ["y0", "parameter"])
def test_a_change_in_place_before_backward_raises(victim, gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    state = y0 * 1.0
    ys = sa.odeint(net, state, T, gradient=gradient)
    with torch.no_grad():
        (state if victim == "y0" else net.inner.weight).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


@pytest.mark.parametrize(
    "function", [sa.solve, sa.odeint_dense, sa.check_gradient, sa.compare_gradients, sa.measure_memory, sa.advise]
)
def test_a_signature_shows_every_keyword_that_is_taken_with_odeints_default(function):
    expected = inspect.signature(sa.odeint).parameters
    found = inspect.signature(function).parameters
    assert not [p for p in found.values() if p.kind is p.VAR_KEYWORD]
    taken = {"rtol", "atol", "method", "options", "params"} if function is not sa.solve else set(expected)
    assert taken <= set(found)
    assert all(found[name].default == expected[name].default for name in taken)


def test_an_unknown_keyword_is_refused_by_the_function_that_was_called():
    net = torch.nn.Linear(1, 1)
    t = torch.tensor([0.0, 1.0])
    with pytest.raises(TypeError, match=r"check_gradient\(\) got .* 'gradeint', did you mean 'gradient'"):
        sa.check_gradient(lambda t, y: net(y), torch.ones(1), t, gradeint="aca")
    with pytest.raises(TypeError, match=r"advise\(\) got an unexpected keyword argument 'event_fn'"):
        sa.advise(lambda t, y: net(y), torch.ones(1), t, event_fn=lambda t, y: y)
    for name in ("params", "compile", "gradient"):
        with pytest.raises(TypeError, match=name):
            sa.odeint_symplectic_adjoint(lambda t, y: net(y), torch.ones(1), t, **{name: None})


TAKE_PAIRS = [
    sa.odeint, sa.solve, sa.odeint_adjoint, sa.odeint_dense, sa.odeint_event, sa.odeint_symplectic_adjoint,
    sa.odeint_checkpoint, sa.odeint_onecheckpoint, sa.check_gradient, sa.compare_gradients, sa.measure_memory,
    sa.advise, sa.NeuralODE.__init__,
]  # fmt: skip


@pytest.mark.parametrize("function", TAKE_PAIRS, ids=lambda function: function.__qualname__)
def test_the_type_of_func_is_a_function_or_a_pair(function):
    one, pair = get_args(get_type_hints(function)["func"])
    assert one == Callable[..., Any] and pair == tuple[Callable[..., Any], Callable[..., Any]]


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint", "odeint_checkpoint", "odeint_dense", "odeint_event"])
def test_every_way_to_solve_takes_a_pair(name):
    pair, y0 = (lambda t, y: torch.cos(t) * y, lambda t, y: -2.0 * y), torch.ones(2, dtype=torch.float64)
    t, keywords = torch.tensor([0.0, 1.0], dtype=torch.float64), {"method": "kencarp4", "rtol": 1e-9, "atol": 1e-9}
    exact = torch.exp(torch.sin(t[1]) - 2.0) * y0  # the solution of the sum
    if name == "odeint_dense":
        found = sa.odeint_dense(pair, y0, 0.0, 1.0, **keywords)(1.0)
    elif name == "odeint_event":
        time, ys = sa.odeint_event(pair, y0, 0.0, event_fn=lambda t, y: y[0] - exact[0], **keywords)
        found = ys[-1]
        assert abs(time - 1.0) < 1e-7
    else:
        found = getattr(sa, name)(pair, y0, t, **keywords)[-1]
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=0)
