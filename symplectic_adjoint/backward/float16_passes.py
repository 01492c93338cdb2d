"""Backward passes through float16 operations: with scaled cotangents, and repeated if one overflows."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from symplectic_adjoint.backward.strategy import BackwardPass, Gradients
from symplectic_adjoint.errors import NonFiniteError
from symplectic_adjoint.field.cotangent_scale import CotangentScale
from symplectic_adjoint.field.host_reads import can_read

LARGEST = (1.0, 2.0**-5, 2.0**-10, 2.0**-15)
"""The magnitude to which each pass scales its largest cotangents: float16 ends at 2^16, and is coarse below 2^-14."""


Overflows = Callable[[Gradients], Tensor]
"""A function that returns, on the device, whether a VJP of a gradient overflowed."""


def within_float16(
    given: BackwardPass, compute: Callable[[BackwardPass, Overflows | None], tuple[Gradients, bool]]
) -> Gradients:
    """Return the gradient by compute(given, overflows), repeated at lower scales as long as a VJP overflows.

    compute returns what `overflows` says too, read together with what it reads anyway; False for None.

    A gradient that is not finite at the lowest scale is returned as it is: torch.amp.GradScaler looks for it. What was
    kept is not freed before the end. Nothing is repeated while a CUDA stream is captured, which cannot read the device.
    """
    passes = LARGEST if can_read(given.grad_ys) else LARGEST[:1]
    gradients = None
    for largest in passes:
        given.field.cotangent_scale = CotangentScale(largest)
        overflows = None if largest == passes[-1] else partial(_overflowed, given.grad_ys)
        try:
            gradients, overflowed = compute(replace(given, kept=list(given.kept)), overflows)
        except NonFiniteError:  # of a second solve, whose steps are checked
            gradients, overflowed = None, True
        if not overflowed:
            break
    return gradients or _not_a_number(given)


def _overflowed(grad_ys: Tensor, gradients: Gradients) -> Tensor:
    """Return, on the device, whether the gradient is not finite although the outputs' cotangents are.

    Every result of a VJP is a term of a sum in the gradient, and a sum with an infinite term is not finite.
    """
    bars = (gradients.y0, gradients.t, *gradients.params)
    finite = [torch.isfinite(bar).all().to(grad_ys.device) for bar in bars if bar is not None]
    return ~torch.stack(finite).all() & torch.isfinite(grad_ys).all() if finite else torch.tensor(False, device="cpu")


def _not_a_number(given: BackwardPass) -> Gradients:
    """Return NaN for every gradient, in place of one that could not be computed."""

    def nan_like(x: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan)

    t = None if given.t is None else nan_like(given.t)
    return Gradients(nan_like(given.y0), t, [nan_like(p) for p in given.field.params])
