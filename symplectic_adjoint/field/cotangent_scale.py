"""Scaling of the cotangents that are pulled back through float16 operations.

float16 ends at 65504 and holds nothing below 6e-8, so a small cotangent would become zero in the VJP of f.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from symplectic_adjoint.field.grad_mode import without_graph
from symplectic_adjoint.field.layout import HALF_DTYPES


class CotangentScale:
    """Scales the cotangents of one VJP by a power of two, chosen on the device, and its results by the inverse.

    largest: the magnitude to which the largest entry is brought, between that and half of it.
    """

    def __init__(self, largest: float = 1.0):
        self.largest = largest

    def apply(self, cotangents: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the scaled cotangents and the inverse of the scale; None if there is nothing to scale."""
        with without_graph():
            sizes = [torch.linalg.vector_norm(x, math.inf) for x in cotangents if x.numel()]
            if not sizes:
                return tuple(cotangents), None
            size = sizes[0] if len(sizes) == 1 else torch.stack(sizes).amax()
            tiny = torch.finfo(size.dtype).tiny
            size = size.nan_to_num(nan=1.0, posinf=1.0).clamp(tiny, 1.0 / tiny)
            mantissa = torch.frexp(size).mantissa  # both quotients are powers of two, and exact
            scale, inverse = mantissa * self.largest / size, size / (mantissa * self.largest)
        return tuple(x * scale for x in cotangents), inverse


def unscaled(bars: Iterable[Tensor | None], inverse: Tensor) -> Iterator[Tensor | None]:
    """Yield the results of a VJP times the inverse of the scale, those in half precision in float32."""
    for bar in bars:
        yield None if bar is None else (bar.float() if bar.dtype in HALF_DTYPES else bar) * inverse
