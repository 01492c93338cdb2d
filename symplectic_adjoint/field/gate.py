"""A gate for second derivatives, which first derivatives do not pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced


class Gate(torch.autograd.Function):
    """The identity, which passes no gradient on while it is closed.

    y0 and t may themselves be computed from a parameter. The first derivative must stop at them, since the caller's
    graph carries it on to the parameter later; second derivatives must pass.
    """

    @dataclass
    class State:
        open: bool = False

    @staticmethod
    def forward(ctx: Any, state: State, x: Tensor) -> Tensor:
        ctx.state = state
        return x.view_as(x)

    @staticmethod
    @untraced
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor | None]:
        return None, grad_outputs[0] if ctx.state.open else None
