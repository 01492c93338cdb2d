"""Measure the memory that a solve and its gradient take on the caller's own model."""

import gc
from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.arguments import Arguments, MethodKeywords, shows_keywords
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.diagnostics.gradient_run import GradientRun
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.memory.allocator import watch_memory


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of live tensors above those that were live before the call.

    peak_tensor_bytes: the most at any time. forward_peak_tensor_bytes: the most during the forward pass.
    kept_tensor_bytes: those kept from the forward pass for the backward pass. ys and the gradients are included; the
    parameters, y0 and the loss are not.
    """

    peak_tensor_bytes: int
    forward_peak_tensor_bytes: int
    kept_tensor_bytes: int


@untraced
@shows_keywords(MethodKeywords)
def measure_memory(
    func: FuncOrPair,
    y0: Any,
    t: Tensor,
    *,
    gradient: str | Strategy | None = None,
    **keywords: Unpack[MethodKeywords],
) -> MemoryUse:
    """Return the memory that one solve and its gradient take, in exact bytes of live tensors.

    Takes odeint's rtol, atol, method, options and params, and raises odeint's errors. The gradient is computed twice
    and measured the second time, so that allocations that a process makes only once are not counted. Leaves the
    caller's parameters and their .grad unchanged.
    """
    given = Arguments.of("measure_memory", keywords, func=func, y0=y0, t=t, gradient=gradient)
    gradient_run = GradientRun(given)
    gradient_run.forward()
    gradient_run.backward()
    return memory_of(gradient_run)


def memory_of(gradient_run: GradientRun) -> MemoryUse:
    """Return the memory of one forward and one backward pass, which should not be the first of this run."""
    gradient_run.discard()
    gc.collect()
    forward, backward = watch_memory(gradient_run.y.device.type, gradient_run.forward, gradient_run.backward)
    return MemoryUse(
        peak_tensor_bytes=max(forward.peak_bytes, backward.peak_bytes),
        forward_peak_tensor_bytes=forward.peak_bytes,
        kept_tensor_bytes=forward.left_bytes,
    )
