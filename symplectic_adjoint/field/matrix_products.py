"""Products of the solver's own matrices and vectors, in their precision under autocast too.

On a card autocast lowers the precision of mv, addmv, bmm, matmul and einsum. It has no rule for the variants that write
to `out`. None of these products is on a graph.
"""

import torch
from torch import Tensor


def mv(A: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return A x, written to `out` if it is given."""
    return torch.mv(A, x, out=A.new_empty(len(A)) if out is None else out)


def addmv(y: Tensor, A: Tensor, x: Tensor, *, alpha: float = 1) -> Tensor:
    """Return y + alpha A x."""
    return torch.addmv(y, A, x, alpha=alpha, out=torch.empty_like(y))


def bmm(A: Tensor, B: Tensor) -> Tensor:
    """Return A B for each matrix of a batch."""
    return torch.bmm(A, B, out=A.new_empty(*A.shape[:2], B.shape[2]))
