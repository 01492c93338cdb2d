"""The field of all generated cases as a pure function: closure kinds differ only in how its values reach it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.oracle import flatten, unflatten

GAINS = (0.7, -1.1, 0.4)
"""The values, in turn, of the number that func reads."""
IN_EVAL = 0.5
"""The factor of a module in eval mode."""


@dataclass(frozen=True)
class Values:
    """Everything that the field depends on besides t and y."""

    W: Tensor
    b: Tensor
    gain: float


def slope(t, state, W, b, gain):
    """Return dy/dt = W gain sin(W y + b) (1 + cos(2t) / 5), in the state's structure; entire, so good for complex y.

    Its last operation is a product, so that under autocast it is in low precision.
    """
    y = flatten(state)
    k = W @ (gain * torch.sin(W @ y + b) * (1.0 + 0.2 * torch.cos(2.0 * t)))
    return unflatten(k, state)


def encode(raw):
    """Compute a value of the field from a leaf, outside func."""
    return torch.sin(raw) + 0.5 * raw
