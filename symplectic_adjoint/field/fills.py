"""Constant states, made once a solve."""

from functools import cached_property

import torch
from torch import Tensor


class Fills:
    """States of zeros and of ones, made when first needed."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype, device: torch.device):
        self._shape, self._dtype, self._device = shape, dtype, device

    @cached_property
    def zeros(self) -> Tensor:
        return torch.zeros(self._shape, dtype=self._dtype, device=self._device)

    @cached_property
    def ones(self) -> Tensor:
        return torch.ones(self._shape, dtype=self._dtype, device=self._device)
