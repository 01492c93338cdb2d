"""Whether torch.func or forward-mode differentiation is at work around the solve.

Both look through every operation and hand func tensors of their own, which a custom Function would hide from them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transforming() -> bool:
    """Inside torch.func.grad, vjp, jvp, vmap and their like, or a forward-mode level."""
    functional: bool = torch._C._are_functorch_transforms_active()  # pyright: ignore[reportPrivateImportUsage]
    return functional or forward_ad._current_level >= 0


def batched(x: Tensor) -> bool:
    """Whether x stands for many tensors (vmap, is_grads_batched), so that no decision can be taken on its value."""
    functorch: Any = torch._C._functorch  # pyright: ignore
    while True:
        if functorch.is_batchedtensor(x) or functorch.is_legacy_batchedtensor(x):
            return True
        if not functorch.is_functorch_wrapped_tensor(x):
            return False
        x = functorch.get_unwrapped(x)
