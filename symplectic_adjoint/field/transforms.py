"""Whether torch.func or forward-mode differentiation is at work around the solve.

Both look through every operation and hand func tensors of their own, which a custom Function would hide from them.
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
    """Inside torch.func.grad, vjp, jvp, vmap and their like, or a forward-mode level."""
    return functorch_is_active() or forward_mode_is_active()


def batched(x: Tensor) -> bool:
    """Whether x stands for many tensors (vmap, is_grads_batched), so that no decision can be taken on its value."""
    while True:
        if is_batched(x) or is_legacy_batched(x):
            return True
        if not is_wrapped(x):
            return False
        x = unwrapped(x)
