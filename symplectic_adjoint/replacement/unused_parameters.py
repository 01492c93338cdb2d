"""Zeros, not None, as the gradient of parameters that func does not use: what torchdiffeq's odeint_adjoint returns."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.transforms import transforming


class _ZerosOf(torch.autograd.Function):
    """y itself, of which each parameter has the derivative zero. The zeros take no memory."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, *parameters: Tensor) -> Tensor:
        ctx.zeros = [p.new_zeros(()).expand_as(p) for p in parameters]
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, ...]:
        return (*cotangents, *ctx.zeros)


def with_zeros(y0: Any, parameters: Sequence[Any]) -> Any:
    """Return y0 such that a backward pass to it gives every parameter that requires a gradient at least zeros.

    DistributedDataParallel waits for the gradient of every parameter, and weight decay acts on those that have one.
    """
    parameters = [p for p in parameters if isinstance(p, Tensor) and p.requires_grad and p.layout is torch.strided]
    if not parameters or not torch.is_grad_enabled() or transforming():
        return y0
    if isinstance(y0, Tensor):
        return _ZerosOf.apply(y0, *parameters)
    if isinstance(y0, tuple) and y0 and isinstance(y0[0], Tensor):
        return (_ZerosOf.apply(y0[0], *parameters), *y0[1:])
    return y0  # torchdiffeq takes no other structure
