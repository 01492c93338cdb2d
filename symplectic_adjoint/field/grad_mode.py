"""Contexts for calls of f: without a graph, or with graphs that are the solver's own."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from symplectic_adjoint._torch_internals import top_saved_tensors_hooks


def without_graph() -> AbstractContextManager[None]:
    """Return torch.no_grad() if grad mode is on, else a null context.

    torch.no_grad() takes as long as an operation on a small state.
    """
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()


def own_graphs() -> AbstractContextManager[Any]:
    """Return a context in which graphs keep their tensors themselves, whatever hooks the caller has set for that.

    It is for graphs that are made and used up within a forward pass. Checkpointing would compute the whole forward pass
    again for the first of them, and save_on_cpu would copy them.
    """
    return nullcontext() if top_saved_tensors_hooks(False) is None else saved_tensors_hooks(_same, _same)


def _same(x: Tensor) -> Tensor:
    return x
