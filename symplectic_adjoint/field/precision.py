"""The lowest precision in which f computes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node

TF32_EPS = 2.0**-10
"""The spacing of TF32, in which a CUDA device may multiply float32 matrices."""

VALUE_ULPS = 256.0
"""How many spacings of the precision in which f computes its value may differ by."""
MOST = 1.0 / 32.0
"""The largest part of a value that is taken for rounding, in any precision: in bfloat16, 256 spacings would be all."""


def precisions_of(node: Node) -> frozenset[torch.dtype]:
    """Return the dtypes of the floating-point and complex results of a node of a graph."""
    dtypes = frozenset(result.dtype for result in node._input_metadata)
    return frozenset(x for x in dtypes if x.is_floating_point or x.is_complex)


def coarsest_eps(
    dtypes: Iterable[torch.dtype], device: torch.device, autocast: torch.dtype | None, modules: Iterable[nn.Module]
) -> float:
    """Return the largest eps among the floating dtypes, autocast's if it is on, and TF32 if the device uses it.

    dtypes: those of the state, of the parameters and of f's operations. modules: those that func calls.
    """
    real = [x.to_real() for x in (*dtypes, *(() if autocast is None else (autocast,)))]
    eps = max(torch.finfo(x).eps for x in real if x.is_floating_point)
    return max(eps, TF32_EPS) if _uses_tf32(device, modules) else eps


def value_bound(eps: float) -> float:
    """Return how much a value of f may differ by, relative to it, where f computes with this eps."""
    return min(VALUE_ULPS * eps, MOST)


def _uses_tf32(device: torch.device, modules: Iterable[nn.Module]) -> bool:
    if device.type != "cuda":
        return False
    if torch.backends.cuda.matmul.fp32_precision == "tf32":
        return True
    # cuDNN's own setting is on by default: it concerns only what cuDNN computes.
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.RNNBase)
    cudnn: Any = torch.backends.cudnn
    settings = (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)
    return "tf32" in settings and any(isinstance(m, kinds) for m in modules)
