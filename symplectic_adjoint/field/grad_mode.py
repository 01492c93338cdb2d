"""Turn grad mode off if it is on."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_graph() -> AbstractContextManager[None]:
    """Return torch.no_grad() if grad mode is on, else a null context.

    torch.no_grad() takes as long as an operation on a small state.
    """
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()
