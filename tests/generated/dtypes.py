"""The dtypes of generated states, and how far a gradient in each may be from the truth in float64."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Dtype:
    """A state's dtype, how often it is drawn, and the relative error allowed."""

    of_state: torch.dtype
    of_time: torch.dtype
    weight: int
    tolerance: float


# Both sides do the same few thousand operations in another order. They agree to some tens of eps, where terms cancel to
# some hundreds: 1e-12 in float64 and 2e-5 in float32. In half precision each of some ten operations of an f call rounds
# to eps, 8e-3 in bfloat16 and 1e-3 in float16, and errors of the same sign add up over the calls of a step.
DTYPES = {
    "float64": Dtype(torch.float64, torch.float64, 6, 1e-12),
    "float32": Dtype(torch.float32, torch.float32, 3, 2e-5),
    "complex128": Dtype(torch.complex128, torch.float64, 2, 1e-12),
    "bfloat16": Dtype(torch.bfloat16, torch.float32, 1, 0.15),
    "float16": Dtype(torch.float16, torch.float32, 1, 0.04),
}

OF_AUTOCAST = DTYPES["bfloat16"].tolerance
"""autocast computes the products of f in bfloat16."""


def raised(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the truth."""
    return torch.complex128 if dtype.is_complex else torch.float64
