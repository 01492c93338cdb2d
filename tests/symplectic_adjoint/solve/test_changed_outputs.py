"""Outputs changed in place after the solve: as of torchdiffeq, the gradient is that of the changed values."""

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
FIXED = {"options": {"step_size": 0.25}}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, t, state):
        a, b = state
        return -self.rate * a.sin(), self.rate * b * a.sum() / 4 + t


class WritesItsOutputs(Pair):
    def forward(self, t, state):
        a, b = state
        da, db = a * -self.rate, torch.zeros_like(b)
        da.mul_(2)[0].add_(self.rate)
        db[:] = self.rate * b
        db += a.sum()
        return da, db


def double_one(ys):
    ys[0].mul_(2)


def change_both(ys):
    ys[0].mul_(2)
    ys[1].add_(ys[0].sum())


def overwrite_entries(ys):
    ys[0][0] = 0
    ys[1][-1, 1] = ys[0][1, 2]


def clamp_the_end(ys):
    ys[0][-1].clamp_(max=0.6)


def copy_one_part_into_another(ys):
    ys[1].copy_(ys[0][:, :2])


def out_of_order(ys):
    ys[1].neg_()
    ys[0].sub_(ys[1].mean())
    ys[1].add_(ys[0][:, 1:])


CHANGES = [double_one, change_both, overwrite_entries, clamp_the_end, copy_one_part_into_another, out_of_order]


def state():
    return tuple(x.requires_grad_() for x in (torch.linspace(0.5, 1, 3).double(), torch.tensor([0.3, -0.4]).double()))


def gradients(func, gradient, change, *, copied):
    y0 = state()
    ys = sa.odeint(func, y0, T, gradient=gradient, **FIXED)
    if copied:
        ys = tuple(x.clone() for x in ys)
    change(ys)
    loss = (ys[0] ** 2).sum() + (ys[1].sin() * torch.arange(6.0).reshape(3, 2)).sum()
    return [*(x.detach() for x in ys), *torch.autograd.grad(loss, (*y0, *func.parameters()))]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("func", [Pair(), WritesItsOutputs()], ids=["", "writes its outputs"])
@pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "continuous"])
def test_the_gradient_is_that_of_the_changed_values(gradient, func, change):
    expected = gradients(func, gradient, change, copied=True)
    for a, b in zip(gradients(func, gradient, change, copied=False), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # rounding, in float64


@pytest.mark.parametrize("change", CHANGES)
def test_torchdiffeq_gives_the_same(change):
    func = Pair()
    # Both take rk4 steps between outputs; torchdiffeq's rk4 is the 3/8 rule, which is ours by the name rk38.
    y0, results = state(), []
    for odeint, method in ((sa.odeint, "rk38"), (torchdiffeq.odeint, "rk4")):
        ys = odeint(func, y0, T, method=method)
        change(ys)
        results.append(torch.autograd.grad((ys[0] ** 2).sum() + ys[1].sum(), (*y0, func.rate)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_a_gradient_that_reads_the_outputs_detects_the_change():
    func, y0 = Pair(), state()
    ys = sa.odeint(func, y0, T, gradient="continuous")
    ys[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys[1].sum().backward()


@pytest.mark.parametrize("structure", [dict, list])
def test_other_structures(structure):
    func, (a, b) = Pair(), state()
    keys = ("a", "b") if structure is dict else (0, 1)
    y0 = {"a": a, "b": b} if structure is dict else [a, b]

    def f(t, y):
        da, db = func(t, (y[keys[0]], y[keys[1]]))
        return {"a": da, "b": db} if structure is dict else [da, db]

    ys = sa.odeint(f, y0, T, params=func, **FIXED)
    ys[keys[0]].mul_(2)
    plain = sa.odeint(func, (a, b), T, **FIXED)
    got, expected = (torch.autograd.grad(x.sum(), (a, b, func.rate)) for x in (ys[keys[0]], 2 * plain[0]))
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)
