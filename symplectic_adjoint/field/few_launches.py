"""Where launching kernels takes longer than what they compute, so that fewer kernels are better than less memory."""

import torch
from torch import Tensor

from symplectic_adjoint.field.host_reads import is_capturing
from symplectic_adjoint.field.transforms import batched, transforming

DEVICES = ("cuda",)
"""The types of devices on which the host launches kernels: on a CPU an operation is a call, and calls are short."""

SMALL_STATE = 64 * 2**10
"""Bytes of a state up to which a step may hold more of them at once. A card sums as many in 1% of a launch's time."""


def launches_count(device: torch.device) -> bool:
    """Return whether launches take time there. In a CUDA graph that is being captured they do not."""
    return device.type in DEVICES and not is_capturing(device)


def is_small(x: Tensor) -> bool:
    """Return whether a state like x is to be summed in few launches, in place and off the graph."""
    return (
        launches_count(x.device)
        and x.nbytes <= SMALL_STATE
        and type(x) is Tensor  # a subclass may lack the fused operations
        and not (torch.is_grad_enabled() or transforming() or batched(x))
    )
