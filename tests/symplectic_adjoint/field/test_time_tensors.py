"""The times that func is passed where those of many steps are made at once, as on a card."""

import pytest
import torch

from symplectic_adjoint import METHODS, odeint
from symplectic_adjoint.field import few_launches
from symplectic_adjoint.field.time_tensors import TimeTensors
from symplectic_adjoint.solve.step_sequences import steps_between
from tests.fields import start

T = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)


@pytest.fixture
def on_a_card(monkeypatch):
    monkeypatch.setattr(few_launches, "DEVICES", ("cpu",))


def times_seen(t=T, change=None, dtype=torch.float64, **keywords):
    """Return the times of all f calls of a solve and its gradient, in order, and the gradient."""
    seen = []

    def func(t, y):
        seen.append((t.dtype, t.ndim, t.requires_grad, t.item()))
        rate = torch.cos(3.0 * t)
        if change is not None and not t.requires_grad:
            change(t)
        return rate * torch.sin(y)

    y0 = start().to(dtype).requires_grad_()
    ys = odeint(func, y0, t, **keywords)
    (y0_bar,) = torch.autograd.grad(ys.sum(), y0)
    return seen, y0_bar


HOW = [
    {"method": "rk4", "options": {"step_size": 0.01}},
    {"method": "dop853", "options": {"step_size": 0.3}},
    {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3},
    {"method": "rk4", "options": {"step_size": 0.1, "perturb": True}},
    {"options": {"step_size": 0.1}, "gradient": "mali"},
    {"method": "rk4", "options": {"step_size": 0.1}, "gradient": "reversible"},
    {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3, "gradient": "continuous"},
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_are_the_same_to_the_last_bit(monkeypatch, how, dtype, sign):
    if dtype == torch.bfloat16 and "gradient" in how:
        pytest.skip("their steps need more digits")
    if "rtol" in how:  # sums formed together may choose other steps, by a rounding error
        monkeypatch.setattr(few_launches, "SMALL_STATE", -1)
        how = {**how, "options": {"norm": lambda x: x.square().mean().sqrt()}}
    expected, _ = times_seen(sign * T, dtype=dtype, **how)
    monkeypatch.setattr(few_launches, "DEVICES", ("cpu",))
    got, _ = times_seen(sign * T, dtype=dtype, **how)
    assert got == expected


@pytest.mark.parametrize("how", HOW[:3])
def test_may_be_changed_in_place(on_a_card, how):
    """Each call still gets its own."""
    expected, y0_bar = times_seen(**how)
    got, bar = times_seen(change=lambda t: t.add_(1.0), **how)
    assert got == expected and torch.equal(bar, y0_bar)


def tensors(count, dtype=torch.float64):
    points = [0.5 * n for n in range(count + 1)]
    steps = steps_between(points, [-1] * count)
    return TimeTensors(dtype, torch.device("cpu")).for_steps(steps, METHODS["rk4"].floats.c)


@pytest.mark.parametrize("order", [1, -1])
def test_of_all_steps_are_found_forwards_and_backwards(on_a_card, order):
    times = tensors(200)
    for n in range(400)[::order]:
        assert times.of(0.25 * n).item() == 0.25 * n


def test_that_no_step_has_are_made_alone(on_a_card):
    times = tensors(200)
    for t in (-1.0, 0.1, 31.99, 32.0, 100.0, 1e9):
        assert times.of(t).item() == t


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_begin_at_multiples_of_16_bytes(on_a_card, dtype):
    times = tensors(3, dtype)
    first = times.of(0.0).data_ptr()
    assert [(times.of(0.25 * n).data_ptr() - first) for n in range(4)] == [0, 16, 32, 48]


def test_in_inference_mode(on_a_card):
    with torch.inference_mode():
        ys = odeint(lambda t, y: t.add_(0.0) * y, start(), T, method="rk4", options={"step_size": 0.1})
    assert torch.isfinite(ys).all()


def test_on_the_cpu_are_made_one_by_one():
    times = tensors(3)
    assert times.of(0.0).data_ptr() != times.of(0.25).data_ptr() - 16
    assert times._values is None
