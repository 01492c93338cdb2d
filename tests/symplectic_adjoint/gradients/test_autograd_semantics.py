"""A solve behaves like any other operation of autograd, also if its inputs depend on each other."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
ROUNDING = 1e-12  # as in test_exactness


def theta(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def solve(func, y0, t=T, *, gradient, **keywords):
    return sa.odeint(func, y0, t, rtol=1e-5, atol=1e-7, gradient=gradient, **keywords)


def like_backprop(loss, inputs, create_graph):
    """Each exact gradient of loss(gradient) against backprop's."""
    expected = torch.autograd.grad(loss("backprop"), inputs, create_graph=create_graph)
    for gradient in EXACT:
        got = torch.autograd.grad(loss(gradient), inputs, create_graph=create_graph)
        for a, b in zip(got, expected, strict=True):
            assert relative_error(a, b) < ROUNDING, gradient


@pytest.mark.parametrize("create_graph", [False, True])
class TestInputsThatDependOnAParameter:
    """Each gets its gradient once, also where the gradient has a graph of its own."""

    def test_y0(self, create_graph):
        th = theta(-0.5, 0.3)
        like_backprop(
            lambda g: weighted_loss(solve(lambda t, y: th * y, th * 2, gradient=g, params=(th,))), [th], create_graph
        )

    def test_t(self, create_graph):
        th = theta(0.7)
        like_backprop(
            lambda g: weighted_loss(solve(lambda t, y: th * y * t, start(), T * th, gradient=g, params=(th,))),
            [th],
            create_graph,
        )

    def test_a_y0_that_is_the_parameter(self, create_graph):
        class Started(nn.Module):
            def __init__(self):
                super().__init__()
                self.y0 = nn.Parameter(torch.tensor([-0.5, 0.3], dtype=torch.float64))

            def forward(self, t, y):
                return self.y0 * y

        func = Started()
        like_backprop(lambda g: weighted_loss(solve(func, func.y0, gradient=g)), [func.y0], create_graph)

    def test_a_solve_that_starts_from_another(self, create_graph):
        net = SmallNet()

        def loss(gradient):
            first = solve(net, start(), gradient=gradient)
            return weighted_loss(solve(net, first[-1], gradient=gradient))

        like_backprop(loss, [net.twice, net.inner.weight], create_graph)


def test_second_derivatives_through_such_inputs_agree_too():
    th = theta(-0.5, 0.3)

    def second(gradient):
        loss = weighted_loss(solve(lambda t, y: th * y, th * 2, gradient=gradient, params=(th,)))
        (first,) = torch.autograd.grad(loss, th, create_graph=True)
        return torch.autograd.grad(first.square().sum(), th)[0]

    expected = second("backprop")
    for gradient in EXACT:
        assert relative_error(second(gradient), expected) < 1e-11  # one order of derivatives more


@pytest.mark.parametrize("gradient", STANDARD)
def test_a_parameter_computed_from_another_parameter_is_counted_once(gradient):
    def flat_grad(gradient, which):
        flat = theta(-0.5, 0.3, 0.2, 0.1)
        w, b = flat[:2], flat[2:]
        params = {"none": (), "parts": (w, b), "all": (w, b, flat)}[which]
        solve(lambda t, y: w * y + b, torch.ones(2).double(), gradient=gradient, params=params).sum().backward()
        return flat.grad

    expected = flat_grad("backprop", "none")
    for which in ("none", "parts", "all"):
        # rounding; the second solve of continuous has its own error, and a doubled gradient would be 100 % off
        assert relative_error(flat_grad(gradient, which), expected) < (1e-2 if gradient == "continuous" else 1e-12)


@pytest.mark.parametrize("gradient", STANDARD)
def test_hooks_on_a_parameter_see_the_whole_gradient_once(gradient):
    def gradient_and_calls(hook):
        th, calls = theta(-0.5, 0.3), []
        th.register_hook(lambda g: calls.append(1) or hook(g))
        solve(lambda t, y: th * y, torch.ones(2).double(), gradient=gradient, params=(th,)).sum().backward()
        return th.grad, len(calls)

    plain, _ = gradient_and_calls(lambda g: g)
    doubled, calls = gradient_and_calls(lambda g: 2 * g)
    assert calls == 1
    assert torch.equal(doubled, 2 * plain)


@pytest.mark.parametrize("gradient", STANDARD)
def test_a_retained_gradient_is_the_whole_gradient(gradient):
    th = theta(0.3, 0.4)
    scaled = th * 1.0
    scaled.retain_grad()
    solve(lambda t, y: scaled * y, torch.ones(2).double(), gradient=gradient, params=(scaled,)).sum().backward()
    assert torch.equal(scaled.grad, th.grad)


@pytest.mark.parametrize("gradient", STANDARD)
def test_func_that_reuses_its_output_is_refused(gradient):
    buffer = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="func wrote into a tensor that it had returned before"), torch.no_grad():
        solve(lambda t, y: torch.neg(y, out=buffer), torch.ones(2).double(), gradient=gradient)


@pytest.mark.parametrize("gradient", STANDARD)
def test_func_that_returns_a_parameter_or_its_argument_is_fine(gradient):
    th = theta(0.5, -0.5)
    y0 = theta(1.0, 1.0)
    solve(lambda t, y: th, y0, gradient=gradient, params=(th,))[-1].sum().backward()
    assert torch.allclose(th.grad, torch.ones(2).double())
    y0.grad = None
    solve(lambda t, y: y, y0, gradient=gradient)[-1].sum().backward()
    # y(1) = e y0, to the tolerance
    assert torch.allclose(y0.grad, torch.exp(torch.ones(2).double()), rtol=1e-4)


@pytest.mark.parametrize("gradient", STANDARD)
def test_changing_y_in_place_is_refused_without_gradients_too(gradient):
    y0 = torch.ones(2, dtype=torch.float64)

    def func(t, y):
        y *= -1
        return y

    with pytest.raises(ValueError, match="func changed y in place"), torch.no_grad():
        solve(func, y0, gradient=gradient)


@pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "backprop"])
def test_a_frozen_parameter_changed_between_the_passes_raises(gradient):
    net = SmallNet()
    net.inner.weight.requires_grad_(False)
    ys = solve(net, start().requires_grad_(), gradient=gradient)
    with torch.no_grad():
        net.inner.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


class EnergyField(nn.Module):
    """-grad E(y): autograd inside func, written in the ways that people write it."""

    def __init__(self, style):
        super().__init__()
        torch.manual_seed(0)
        self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.style = style

    def forward(self, t, y):
        outside = torch.is_grad_enabled()
        with torch.enable_grad():
            if self.style == "requires_grad_ in place":
                y.requires_grad_(True)
                t.requires_grad_(True)
            elif self.style == "where needed":
                y = y if y.requires_grad else y.detach().requires_grad_()
            elif self.style == "always a new leaf, unless a graph is wanted" and not (outside and y.requires_grad):
                y = y.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)[0]


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize(
    "style", ["requires_grad_ in place", "where needed", "always a new leaf, unless a graph is wanted"]
)
def test_autograd_inside_func_works(style, gradient):
    func = EnergyField(style)
    inputs = [func.energy[0].weight, func.energy[2].weight]

    def grads(gradient):
        return torch.autograd.grad(weighted_loss(solve(func, start().requires_grad_(), gradient=gradient)), inputs)

    for a, b in zip(grads(gradient), grads("backprop"), strict=True):
        assert relative_error(a, b) < ROUNDING


@pytest.mark.parametrize("gradient", STANDARD)
def test_autocast_in_the_backward_pass_is_that_of_the_forward_pass(gradient):
    net, seen = nn.Linear(3, 3), set()

    def func(t, y):
        seen.add((torch.is_autocast_enabled("cpu"), net(y).dtype))
        return net(y).float()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ys = sa.odeint(func, torch.ones(2, 3), T, method="rk4", gradient=gradient, params=(*net.parameters(),))
    ys.square().sum().backward()
    assert seen == {(True, torch.bfloat16)}


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize(
    ("method", "options", "t0"),
    [
        ("heun3", {"step_size": 0.1}, 1e7),
        ("dopri8", {"max_step": 0.1}, 1e3),
        ("dopri5", {"max_step": 0.1}, 0.0),
        ("rk4", {"step_size": 1e-3}, 1e5),
    ],
)
def test_rounding_does_not_add_a_step(method, options, t0, gradient):
    t = torch.tensor([t0, t0 + 0.27, t0 + 1.0], dtype=torch.float64, requires_grad=True)
    solution = sa.solve(SmallNet(), start(), t, method=method, options=options, rtol=1e-3, atol=1e-3, gradient=gradient)
    assert solution.grid.h.abs().min() > 1e-4 * solution.grid.h.abs().max()
    solution.ys.sum().backward()
    assert torch.isfinite(t.grad).all()


def test_a_step_size_that_times_cannot_resolve_is_refused_at_once():
    with pytest.raises(sa.StepSizeUnderflow, match="no longer advances times as large as 1e\\+08"):
        sa.odeint(SmallNet(), start(), 1e8 + T, method="rk4", options={"step_size": 1e-9})


def test_a_grid_longer_than_allowed_is_refused_before_it_is_built():
    with pytest.raises(sa.TooManySteps, match="the grid has 1000000000000 steps"):
        sa.odeint(SmallNet(), start(), T, method="rk4", options={"step_size": 1e-12, "max_num_steps": 1000})


@pytest.mark.parametrize("norm", [lambda x: x, lambda x: x.abs().amax(keepdim=True).reshape(1)])
def test_a_norm_that_is_not_one_number_is_named(norm):
    with pytest.raises(TypeError, match="option 'norm' must return one number, got a tensor of shape"):
        solve(SmallNet(), start(), gradient="symplectic", options={"norm": norm})


def test_a_norm_may_return_a_python_number_and_sees_the_states_shape_in_the_backward_pass():
    seen = set()

    def norm(x):
        seen.add(tuple(x.shape))
        return x.abs().max().item()

    solve(SmallNet(), start(), gradient="continuous", options={"norm": norm}).sum().backward()
    assert seen == {(4, 3)}


def test_adjacent_floats_are_valid_times():
    t = torch.tensor([0.0, 1e-300], dtype=torch.float64)
    assert sa.odeint(SmallNet(), start(), t, method="rk4").shape == (2, 4, 3)
