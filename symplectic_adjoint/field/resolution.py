"""The resolution of func's values, if func returns a lower precision than the state's, as under autocast."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def can_cast(dtype: torch.dtype, to: torch.dtype) -> bool:
    """Return whether a value of func may be cast to the state's dtype: only the precision may differ."""
    return dtype.is_complex if to.is_complex else dtype.is_floating_point


@dataclass(frozen=True)
class Resolution:
    """The relative spacing of func's values: machine epsilon of their dtype.

    eps: a number, or one for each component, 0 where the spacing is no coarser than the state's. coarsest: the largest.
    """

    eps: float | Tensor
    coarsest: float


def resolution_of(
    dtypes: Sequence[torch.dtype], sizes: Sequence[int], solve_dtype: torch.dtype, device: torch.device
) -> Resolution | None:
    """Return the resolution of values of these dtypes and sizes, None if none is coarser than solve_dtype's.

    The values are those of the parts of a state, which are packed one after the other.
    """
    finest = torch.finfo(solve_dtype).eps
    spacings = [eps if (eps := torch.finfo(dtype).eps) > finest else 0.0 for dtype in dtypes]
    coarsest = max(spacings)
    if coarsest == 0.0:
        return None
    if min(spacings) == coarsest:
        return Resolution(coarsest, coarsest)
    real, parts = solve_dtype.to_real(), zip(sizes, spacings, strict=True)
    return Resolution(torch.cat([torch.full((n,), eps, dtype=real, device=device) for n, eps in parts]), coarsest)
