"""Inference mode: solves inside it, tensors that come from it, and modules made in it."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


class Shifted(SmallNet):
    def __init__(self, shift):
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, t, y):
        return super().forward(t, y) + self.shift


def from_inference(make):
    with torch.inference_mode():
        return make()


def gradients(func, y0, t, gradient):
    ys = sa.odeint(func, y0, t, gradient=gradient)
    loss = weighted_loss(ys) if isinstance(ys, torch.Tensor) else sum(map(weighted_loss, ys))
    return torch.autograd.grad(loss, [p for p in func.parameters() if p.requires_grad], allow_unused=True)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_a_start_and_times_from_inference_mode_are_constants(gradient):
    func = SmallNet()
    got = gradients(func, from_inference(start), from_inference(T.clone), gradient)
    assert_same(got, gradients(func, start(), T, gradient))


@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_buffers_and_frozen_parameters_from_inference_mode_are_constants(gradient):
    shift = start(seed=3)
    func, plain = Shifted(from_inference(shift.clone)), Shifted(shift)
    assert_same(gradients(func, start(), T, gradient), gradients(plain, start(), T, gradient))
    for module in (func, plain):
        module.frozen = torch.nn.Parameter(from_inference(lambda: torch.ones(2)), requires_grad=False)
    assert_same(gradients(func, start(), T, gradient), gradients(plain, start(), T, gradient))


@pytest.mark.parametrize("gradient", sa.GRADIENTS)
@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
def test_a_whole_solve_inside(gradient, outside):
    func, y0 = SmallNet(), start().requires_grad_(outside)
    with torch.inference_mode():
        if not outside:
            func, y0 = SmallNet(), start()
        solution = sa.solve(func, y0, T, gradient=gradient)
        assert solution.ys.is_inference() and len(solution.grid.t)
    assert torch.equal(solution.ys, sa.odeint(SmallNet(), start(), T, gradient=gradient))


def test_a_structured_start_an_event_and_a_dense_solution():
    func, y0 = SmallNet(), from_inference(start)
    ys = sa.odeint(lambda t, y: (func(t, y[0]), -y[1]), (y0, y0), T, params=func)
    time, at_event = sa.odeint_event(func, y0, from_inference(lambda: T[0].clone()), event_fn=lambda t, y: t - 0.5)
    dense = sa.odeint_dense(func, y0, 0.0, 1.0)(from_inference(lambda: T[1].clone()))
    (ys[0].sum() + at_event.sum() * time + dense.sum()).backward()
    assert func.inner.weight.grad is not None


def test_a_trainable_parameter_from_inference_mode_is_named():
    func = from_inference(SmallNet)
    with pytest.raises(sa.UnsupportedCombination, match=r"parameter of shape \(3,\) was made in inference mode"):
        sa.odeint(func, start(), T)
    with torch.no_grad():
        assert torch.equal(sa.odeint(func, start(), T), sa.odeint(SmallNet(), start(), T))
