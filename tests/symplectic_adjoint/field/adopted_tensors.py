"""Tensors that other code computed, and the closures and objects that hold them for func."""

from functools import partial
from types import SimpleNamespace

import torch
from torch import nn


def decay(rates, drive):
    """Return a func whose closure holds two tensors."""
    return lambda t, y: torch.tanh(rates * y) + drive * t


class TwoOutputs(torch.autograd.Function):
    """(a, b) -> (2a + b, ab)."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return 2.0 * a + b, a * b

    @staticmethod
    def backward(ctx, grad_sum, grad_product):
        a, b = ctx.saved_tensors
        return 2.0 * grad_sum + b * grad_product, grad_sum + a * grad_product


def view_of_changed_base(a, b):
    """Return views that were made before their base was changed, whose nodes autograd makes anew when asked."""
    base = torch.stack([a.sin(), b])
    views = base[0], base[1]
    base.mul_(1.5)
    base[1].add_(a)
    return views


def view_changed_itself(a, b):
    base = torch.stack([a.exp(), b])
    view = base[0]
    view.mul_(0.5)
    return view, base[1]


def same_twice(a, b):
    z = a * b
    return z, z


def one_from_the_other(a, b):
    z = a.exp() * b
    return z, z.sin()


PAIRS = {
    "leaves": lambda a, b: (a, b),
    "computed": lambda a, b: (a.exp(), a * b),
    "a leaf and what is computed from it": lambda a, b: (a, a.exp() * b),
    "one computed from the other": one_from_the_other,
    "the same tensor twice": same_twice,
    "split": lambda a, b: torch.cat([a.exp(), b]).split(3),
    "chunk of a leaf": lambda a, b: torch.cat([a, b]).chunk(2),
    "unbind": lambda a, b: torch.stack([a.exp(), b * a]).unbind(),
    "one piece of an unbind": lambda a, b: (torch.stack([a, a * b, b * b]).unbind()[1], b),
    "max and min": lambda a, b: torch.stack([a, b]).aminmax(dim=0),
    "a custom Function's two outputs": TwoOutputs.apply,
    "its second output alone": lambda a, b: (TwoOutputs.apply(a, b)[1], a),
    "views of a changed base": view_of_changed_base,
    "a view changed itself": view_changed_itself,
    "expanded": lambda a, b: (a.sum().expand(3), b),
}
HOLDERS = {
    "closure": decay,
    "partial": lambda rates, drive: partial(lambda r, t, y, d: torch.tanh(r * y) + d * t, rates, d=drive),
    "defaults": lambda rates, drive: lambda t, y, r=rates, d=drive: torch.tanh(r * y) + d * t,
    "bound method": lambda rates, drive: Owner(rates, drive).slope,
    "callable object": lambda rates, drive: Owner(rates, drive),
    "namespace": lambda rates, drive: reading(SimpleNamespace(rates=rates, drive=drive)),
    "attributes of a module": lambda rates, drive: Holder(rates, drive),
    "buffers of a module": lambda rates, drive: Holder(rates, drive, buffers=True),
    "method of a module": lambda rates, drive: Holder(rates, drive).forward,
    "function around a module": lambda rates, drive: around(Holder(rates, drive)),
    "list": lambda rates, drive: reading_list([rates, drive]),
    "dict": lambda rates, drive: reading_dict({"rates": rates, "drive": drive}),
    "helper's closure": lambda rates, drive: around(decay(rates, drive)),
}


class Owner:
    """A plain object."""

    def __init__(self, rates, drive):
        self.rates, self.drive = rates, drive

    def slope(self, t, y):
        return torch.tanh(self.rates * y) + self.drive * t

    def __call__(self, t, y):
        return self.slope(t, y)


class Holder(nn.Module):
    """A module whose tensors are no parameters."""

    def __init__(self, rates, drive, *, buffers=False):
        super().__init__()
        if buffers:
            self.register_buffer("rates", rates)
            self.register_buffer("drive", drive)
        else:
            self.rates, self.drive = rates, drive

    def forward(self, t, y):
        return torch.tanh(self.rates * y) + self.drive * t


def reading(held):
    return lambda t, y: torch.tanh(held.rates * y) + held.drive * t


def reading_list(held):
    return lambda t, y: torch.tanh(held[0] * y) + held[1] * t


def reading_dict(held):
    return lambda t, y: torch.tanh(held["rates"] * y) + held["drive"] * t


def around(func):
    def f(t, y):
        return func(t, y)

    return f
