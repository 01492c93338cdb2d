"""Detect whether the solve runs inside a transform of torch.func or forward-mode differentiation.

Both trace every operation and pass func tensors of their own, which a custom torch.autograd.Function would hide.
"""

from torch import Tensor

from symplectic_adjoint._torch_internals import (
    forward_mode_is_active,
    functorch_is_active,
    is_batched,
    is_legacy_batched,
    is_wrapped,
    unwrapped,
)


def transforming() -> bool:
    """Return whether torch.func.grad, vjp, jvp, vmap or the like, or a forward-mode level, is active."""
    return functorch_is_active() or forward_mode_is_active()


def batched(x: Tensor) -> bool:
    """Return whether x stands for many tensors (vmap, is_grads_batched): no decision may depend on its value."""
    while True:
        if is_batched(x) or is_legacy_batched(x):
            return True
        if not is_wrapped(x):
            return False
        x = unwrapped(x)
