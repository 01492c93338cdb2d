"""Switching autograd off, where that changes anything."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_graph() -> AbstractContextManager[None]:
    """Return torch.no_grad(), which takes as long as an operation on a small state, only where grad mode is on."""
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()
