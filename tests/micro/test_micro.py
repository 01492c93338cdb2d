"""Micro-benchmarks: what one step, its transpose, dense output, one VJP and one decision on a step size cost.

    pytest tests/micro -m micro --benchmark-json micro.json && symplectic-bench check --micro micro.json

Calls of f and bytes decide there; times, as multiples of the bare call of f in the same run, only advise.
"""

import gc

import pytest
import torch
from torch import nn

from symplectic_adjoint import METHODS, watch_memory
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.solve.step_control import StepControl
from symplectic_adjoint.steps.output_cotangents import NO_OUTPUTS
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import transpose_step

pytestmark = [
    pytest.mark.micro,
    # The benchmarked functions do what one pass of a solve does: nothing is written to.
    pytest.mark.filterwarnings("ignore::pytest_benchmark.logger.PytestBenchmarkWarning"),
]

TABLEAU = METHODS["dopri5"]
ROUNDS = 200


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16))

    def forward(self, t, y):
        return self.layers(y)


@pytest.fixture
def f():
    net = Net().double()
    return Field(net, tuple(net.parameters()), state())


def state():
    return torch.linspace(-1.0, 1.0, 64 * 16, dtype=torch.float64).reshape(64, 16)


def a_step(f):
    return Step(f, TABLEAU, 0.0, 0.1, 0.1, state())


def pull(reached, inputs, cotangents, /, *, by_params=False):
    return torch.autograd.grad(list(reached), list(inputs), list(cotangents), allow_unused=True)


def measure(benchmark, f, function, prepare=lambda: ()):
    """Time function(*prepare()) and record its counters."""
    function(*prepare())  # what is made once does not count
    gc.collect()
    before, arguments = (0, 0), []

    def note():
        nonlocal before
        arguments.extend(prepare())  # watched too, since torch knows the size of no tensor that was there before
        before = f.f_calls, f.vjps

    def run():
        given = tuple(arguments)
        arguments.clear()
        function(*given)

    _, cost = watch_memory("cpu", note, run)
    benchmark.extra_info |= {
        "f_calls_forward": f.f_calls - before[0],
        "vjps_backward": f.vjps - before[1],
        "peak_tensor_bytes": cost.peak_bytes,
    }
    benchmark.pedantic(function, setup=lambda: (prepare(), {}), rounds=ROUNDS, warmup_rounds=10)


def test_reference(benchmark, f):
    """The bare call of f."""
    t, y = torch.tensor(0.0, dtype=torch.float64), state()
    with torch.no_grad():
        measure(benchmark, f, lambda: f.func(t, y))


def test_step(benchmark, f):
    with torch.no_grad():
        measure(benchmark, f, lambda step: step.end(), lambda: (a_step(f),))


def test_transpose(benchmark, f):
    def evaluated():
        step = a_step(f)
        with torch.no_grad():
            step.evaluate(TABLEAU.stages - 1)
        return step, torch.ones_like(step.y)

    measure(benchmark, f, lambda step, lam: transpose_step(f, step, lam, NO_OUTPUTS, pull, with_time=False), evaluated)


def test_interpolation(benchmark, f):
    def evaluated():
        step = a_step(f)
        step.evaluate(TABLEAU.interpolant.rows)
        return (step,)

    with torch.no_grad():
        measure(benchmark, f, lambda step: step.output(0.3), evaluated)


def test_vjp(benchmark, f):
    y, w = state(), torch.ones(64, 16, dtype=torch.float64)
    measure(benchmark, f, lambda: f.transpose(f.linearize(0.0, y), w, pull))


def test_controller(benchmark, f):
    control = StepControl(1e-6, 1e-8)

    def evaluated():
        step = a_step(f)
        step.end()
        step.evaluate(TABLEAU.interpolant.rows)
        return (step,)

    def decide(step):
        return control.factor(control.error_ratio(step), 1.0, TABLEAU.order)

    with torch.no_grad():
        measure(benchmark, f, decide, evaluated)
