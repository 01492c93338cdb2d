"""The gradients of captured solves equal ordinary autograd through the recorded grid, for every method."""

import copy
import shutil

import pytest
import torch

from symplectic_adjoint import GRADIENTS, METHODS, solve
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import SmallNet, start, weighted_loss
from tests.oracle import relative_error, replay

# As in gradients/test_exactness.py: a few hundred float64 operations in another order.
ROUNDING = 1e-12
CAPTURES = [name for name, gradient in GRADIENTS.items() if gradient.captures]
GRIDS = {"adaptive": {}, "interpolate": {"outputs": "interpolate"}, "step-size": {"step_size": 0.15}, "grid-is-t": {}}


def possible(method, grid):
    adaptive = METHODS[method].adaptive
    return adaptive if grid in ("adaptive", "interpolate") else grid == "step-size" or not adaptive


CASES = [(method, grid) for method in EXPLICIT_METHODS for grid in GRIDS if possible(method, grid)]


def differentiate(ys, *inputs):
    return torch.autograd.grad(weighted_loss(ys), inputs, allow_unused=True)


def errors(got, expected):
    assert [x is None for x in got] == [x is None for x in expected]
    return [relative_error(a, b) for a, b in zip(got, expected, strict=True) if b is not None]


def test_the_gradients_that_capture_are_these():
    assert CAPTURES == ["symplectic", "stages", "revolve"]


@pytest.mark.parametrize("gradient", CAPTURES)
@pytest.mark.parametrize(("method", "grid"), CASES)
def test_a_captured_gradient_is_autograd_on_the_recorded_grid(graphs, method, grid, gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 0.25, 0.3, 0.31, 0.8, 1.0], dtype=torch.float64, requires_grad=True)
    for _ in range(2):  # the second solve replays what the first one recorded
        solution = solve(
            func, y0, t, rtol=1e-4, atol=1e-4, method=method, options=GRIDS[grid], gradient=gradient, capture=True
        )
        ys = replay(func, METHODS[method], solution.grid, y0, t)
        assert relative_error(solution.ys, ys) < ROUNDING
        inputs = [y0, t, *func.parameters()]
        found = errors(differentiate(solution.ys, *inputs), differentiate(ys, *inputs))
        assert max(found) < ROUNDING
    assert solution.stats.capture.recorded == 0
    assert solution.stats.capture.replayed > 0
    assert solution.stats.capture.fallback is None


@pytest.mark.parametrize("gradient", CAPTURES)
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_float32_agrees_with_the_eager_gradient_to_rounding(graphs, method, gradient):
    func, y0 = SmallNet().float(), start().float().requires_grad_()
    t = torch.tensor([0.0, 0.4, 1.0])
    options = {"step_size": 0.1}
    inputs = [y0, *func.parameters()]
    got, expected = (
        differentiate(
            solve(func, y0, t, method=method, options=options, gradient=gradient, capture=capture).ys, *inputs
        )
        for capture in (True, False)
    )
    assert max(errors(got, expected)) < 1e-5  # some hundred operations of 6e-8


def test_a_decreasing_time_and_a_method_whose_stages_are_not_all_used(graphs):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([1.0, 0.7, -0.5], dtype=torch.float64, requires_grad=True)
    for method in ("fehlberg2", "dopri8", "bosh3"):
        solution = solve(func, y0, t, rtol=1e-5, atol=1e-5, method=method, capture=True)
        ys = replay(func, METHODS[method], solution.grid, y0, t)
        inputs = [y0, t, *func.parameters()]
        assert max(errors(differentiate(solution.ys, *inputs), differentiate(ys, *inputs))) < ROUNDING


@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
def test_sums_in_higher_precision_are_as_accurate_as_in_eager_mode(graphs, accumulate):
    func, y0 = SmallNet().float(), start().float().requires_grad_()
    t = torch.tensor([0.0, 3.0])
    twin, y_twin = copy.deepcopy(func).double(), y0.detach().double().requires_grad_()

    def error(**keywords):
        solution = solve(func, y0, t, method="rk4", options={"step_size": 0.01}, accumulate=accumulate, **keywords)
        got = differentiate(solution.ys, y0, *func.parameters())
        ys = replay(twin, METHODS["rk4"], solution.grid, y_twin, t.double())
        return max(errors([x if x is None else x.double() for x in got], differentiate(ys, y_twin, *twin.parameters())))

    assert error(capture=True) < 2 * error()  # what is left is the rounding of f in 300 steps, in another order


def test_complex_states(graphs):
    weight = torch.nn.Parameter(torch.randn(3, 3, dtype=torch.complex128))

    def func(t, y):
        return torch.tanh(y @ weight) * torch.cos(t)

    y0 = torch.randn(4, 3, dtype=torch.complex128, requires_grad=True)
    t = torch.tensor([0.0, 0.6, 1.0], dtype=torch.float64, requires_grad=True)

    def gradient(**keywords):
        ys = solve(func, y0, t, rtol=1e-6, atol=1e-8, **keywords).ys
        return torch.autograd.grad(ys.abs().square().sum(), [y0, t, weight])

    assert max(errors(gradient(capture=True), gradient(gradient="backprop"))) < ROUNDING


def test_structured_states_and_half_precision_parts(graphs):
    net = torch.nn.Linear(3, 3)

    def func(t, state):
        y, z = state["y"], state["z"]
        return {"y": torch.tanh(net(y)) * torch.cos(t), "z": z * 0.5 + y.mean(-1)}

    y0 = {"y": torch.randn(4, 3, requires_grad=True), "z": torch.randn(4, requires_grad=True)}
    t = torch.tensor([0.0, 0.5, 1.0])
    inputs = [y0["y"], y0["z"], *net.parameters()]

    def gradient(**keywords):
        ys = solve(func, y0, t, rtol=1e-4, atol=1e-4, **keywords).ys
        return torch.autograd.grad(ys["y"].square().sum() + ys["z"].sin().sum(), inputs)

    assert max(errors(gradient(capture=True), gradient())) < 1e-5

    half = torch.nn.Linear(3, 3, dtype=torch.bfloat16)
    y = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)

    def of_half(**keywords):
        ys = solve(lambda t, y: torch.tanh(half(y)), y, t, method="rk4", options={"step_size": 0.25}, **keywords).ys
        return torch.autograd.grad(ys.float().square().sum(), [y, *half.parameters()])

    # bfloat16 has a spacing of 0.8 %, and the sums of the stages are rounded in another order.
    assert max(errors(of_half(capture=True), of_half())) < 0.02


def test_a_state_that_is_not_contiguous_keeps_its_strides(graphs):
    conv = torch.nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)
    seen = set()

    def func(t, y):
        seen.add(y.stride())
        return torch.tanh(conv(y))

    y0 = torch.randn(2, 2, 5, 5, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def gradient(**keywords):
        ys = solve(func, y0, t, rtol=1e-5, atol=1e-5, **keywords).ys
        return torch.autograd.grad(ys.square().sum(), [y0, *conv.parameters()])

    assert max(errors(gradient(capture=True), gradient())) < 1e-11  # the two solves round differently
    assert seen == {y0.stride()}


@pytest.mark.skipif(shutil.which("g++") is None, reason="compile=True needs a C++ compiler")
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_compiled_steps_are_programs_too(method):  # which the tape of "recorded" does not see
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    options = {} if METHODS[method].adaptive else {"step_size": 0.25}
    inputs = [y0, t, *func.parameters()]
    for _ in range(2):
        solution = solve(func, y0, t, rtol=1e-4, atol=1e-4, method=method, options=options, capture=True, compile=True)
        ys = replay(func, METHODS[method], solution.grid, y0, t)
        assert max(errors(differentiate(solution.ys, *inputs), differentiate(ys, *inputs))) < ROUNDING
    assert solution.stats.capture.recorded == 0
