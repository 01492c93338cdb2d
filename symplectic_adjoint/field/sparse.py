"""Sparse tensors, of which a parameter or its gradient may be one."""

import torch
from torch import Tensor
from torch.autograd.graph import Node


def is_sparse(x: Tensor) -> bool:
    """Return whether x is stored in one of torch's sparse layouts."""
    return x.layout is not torch.strided


def sparse_sum(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b, where one of them or both are sparse, with each entry stored once."""
    total = b + a if is_sparse(a) else a + b  # torch adds a sparse tensor to a dense one, and no dense one to a sparse
    return total.coalesce() if total.layout is torch.sparse_coo else total


def gives_sparse(node: Node) -> bool:
    """Return whether a node's gradient is sparse where its input is dense, as with nn.Embedding(..., sparse=True)."""
    return getattr(node, "_saved_sparse", False) or getattr(node, "_saved_sparse_grad", False)
