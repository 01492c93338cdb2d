"""Whether the entries of a tensor are finite, and which is not."""

import cmath

import torch
from torch import Tensor


def multi_index(index: int, shape: torch.Size) -> tuple[int, ...]:
    """Return the multi-index of an entry of the flattened tensor; () for a 0-dim one."""
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(index, device="cpu"), shape)) if shape else ()


def first_non_finite(x: Tensor) -> int | None:
    """Return the flat index of the first entry that is not finite, None if all are."""
    return None if all_finite(x) else int((~torch.isfinite(x)).flatten().to(torch.uint8).argmax())


def all_finite(x: Tensor) -> bool:
    """Return whether all entries are finite.

    If one is not, their sum is not either, and a sum takes one operation. Where it overflows, all are looked at.
    """
    x = x.detach()
    return cmath.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())
