"""The cast of func's values to the state's dtype, if func returns a lower precision, as under autocast."""

from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.resolution import Resolution, can_cast, resolution_of
from symplectic_adjoint.field.subclasses import plain


class ValueCast:
    """The cast to the shape, dtype and device of a state.

    resolution: that of the values cast, once there is one.
    """

    def __init__(self, shape: torch.Size, dtype: torch.dtype, device: torch.device):
        self._shape, self._dtype, self._device = shape, dtype, device
        self.resolution: Resolution | None = None

    def __call__(self, k: Any) -> Tensor:
        """Return k in the state's dtype if only its precision differs; raise TypeError or ValueError."""
        if not isinstance(k, Tensor):
            raise TypeError(f"func must return a tensor like y, got {type(k).__name__}")
        k = plain(k)
        if k.shape == self._shape and k.device == self._device and can_cast(k.dtype, self._dtype):
            if self.resolution is None and k.dtype != self._dtype:
                self.resolution = resolution_of((k.dtype,), (k.numel(),), self._dtype, k.device)
            return k.to(self._dtype)
        raise ValueError(
            f"func must return a tensor like y (shape {tuple(self._shape)}, {self._dtype}, {self._device}), "
            f"got shape {tuple(k.shape)}, {k.dtype}, {k.device}: only its precision may differ"
        )
