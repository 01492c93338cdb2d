"""The user's own modes around the passes: counters of operations, profilers, anomaly detection, saved-tensor hooks."""

from contextlib import nullcontext

import pytest
import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
FIXED = {"options": {"step_size": 0.25}}


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Overriding(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


MODES = {
    "flops": lambda: FlopCounterMode(display=False),
    "dispatch": Dispatching,
    "function": Overriding,
    "profiler": torch.profiler.profile,
    "anomalies": torch.autograd.detect_anomaly,
    "one thread": lambda: torch.autograd.set_multithreading_enabled(False),
    "saved on the CPU": save_on_cpu,
    "saved as copies": lambda: saved_tensors_hooks(lambda x: (x.clone(),), lambda held: held[0]),
    "deterministic": lambda: deterministic(),
}


class deterministic:
    def __enter__(self):
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *_):
        torch.use_deterministic_algorithms(False)


def module(func):
    return func


def plain_function(func):
    return lambda t, y: func(t, y) * 1.0


def gradients(func, around_forward, around_backward, **keywords):
    y0, t = start().requires_grad_(), T.clone().requires_grad_()
    with around_forward:
        ys = sa.odeint(func, y0, t, **keywords)
        loss = weighted_loss(ys)
    with around_backward:
        loss.backward()
    return [ys.detach(), y0.grad, t.grad, *(p.grad for p in func.parameters())]


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("gradient", ["backprop", "baseline", "symplectic", "revolve", "reversible", "continuous"])
def test_a_mode_changes_no_number(gradient, mode, where):
    keywords = {"gradient": gradient, **FIXED, **({} if gradient == "mali" else {"method": "rk4"})}
    expected = gradients(SmallNet(), nullcontext(), nullcontext(), **keywords)
    around = (mode(), nullcontext()) if where == "forward" else (nullcontext(), mode())
    got = gradients(SmallNet(), *around, **keywords)
    for a, b in zip(got, expected, strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("wrapped", [module, plain_function])
@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_one_mode_around_both_passes_and_autograd_grad(gradient, wrapped):
    keywords = {"gradient": gradient, **FIXED, **({} if gradient == "mali" else {"method": "rk4"})}

    def grad():
        func, y0 = SmallNet(), start().requires_grad_()
        ys = sa.odeint(wrapped(func), y0, T, params=func, **keywords)
        return torch.autograd.grad(weighted_loss(ys), (y0, *func.parameters()), allow_unused=True)

    with FlopCounterMode(display=False) as counter:
        got = grad()
    for a, b in zip(got, grad(), strict=True):
        assert a is b is None or torch.equal(a, b)
    assert counter.get_total_flops() > 0


def test_the_flops_of_a_gradient_are_counted():
    """The layers' products of the recomputed calls, and their VJPs: those in the layers' weights and inputs."""
    func, y0 = SmallNet(), start().requires_grad_()
    one_call = 2 * 4 * (3 * 8 + 8 * 3)
    with FlopCounterMode(display=False) as forward:
        ys = sa.odeint(func, y0, T, method="euler", gradient="stages", options={"step_size": 0.5})
    with FlopCounterMode(display=False) as backward:
        ys.sum().backward()
    steps = 2
    assert forward.get_total_flops() == steps * one_call
    assert backward.get_total_flops() == 3 * steps * one_call
