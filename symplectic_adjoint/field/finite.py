"""Find the entry of a tensor that is not finite."""

import torch
from torch import Tensor


def multi_index(index: int, shape: torch.Size) -> tuple[int, ...]:
    """Return the multi-index of an entry of the flattened tensor; () for a 0-dim one."""
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(index, device="cpu"), shape)) if shape else ()


def first_non_finite(x: Tensor) -> int | None:
    """Return the flat index of the first entry that is not finite, None if all are."""
    finite = torch.isfinite(x)
    if bool(finite.all()):
        return None
    return int((~finite).flatten().to(torch.uint8).argmax())
