"""Whether an event is a jump of its function, and whether time alone decides when it happens."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from symplectic_adjoint.solve.events import Crossing

READS = ("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "__array__")
"""The functions of a tensor that return its numbers to Python."""


@torch.no_grad()
def jumps(crossing: Crossing, y: Tensor) -> bool:
    """Return whether the event function jumps across zero. y: the state at the event.

    It does if it falls as far over the bracket, which is rounding error wide, as over a much wider interval.
    """
    bracket, eps = crossing.bracket, max(torch.finfo(y.dtype).eps, crossing.event.eps)
    if bracket.drop == math.inf:
        return True
    if bracket.drop <= min(1e3 * eps, 0.5) * bracket.fall < math.inf:
        return False
    slope = crossing.slope
    still = float(slope.abs().amax()) if y.numel() else 0.0
    rounding = float(y.abs().amax()) / still if still > 0.0 else 0.0  # y resolves no shorter time than eps times this
    wide = max(math.sqrt(eps) * abs(crossing.h), 16.0 * eps * max(abs(crossing.t), rounding))
    wide = math.copysign(min(wide, abs(crossing.h)), crossing.h)
    i = crossing.event.index(crossing.t, y)
    before, after = (crossing.event.signed(crossing.t + d, y + d * slope)[i].item() for d in (-wide, wide))
    return not bracket.drop < 0.5 * (before - after)


def decided_by_time(crossing: Crossing, y: Tensor) -> bool:
    """Return whether the event would happen at the same time for other states and parameters. y: as in jumps.

    The event function must not depend on a tensor that requires a gradient, and states near y must change nothing.
    """
    event, bracket = crossing.event, crossing.bracket
    with torch.enable_grad(), _LostGradients() as watch:
        value = event.crossing(crossing.t, y)
    if value.requires_grad or watch.lost:
        return False
    with torch.no_grad():
        shift = _shift(crossing, y)
        return all(
            event.value(bracket.low, near) > 0.0 >= event.value(bracket.high, near) for near in (y + shift, y - shift)
        )


def _shift(crossing: Crossing, y: Tensor) -> Tensor:
    """Return a small change of every component, irregular enough not to cancel in sums and differences."""
    size, eps = y.abs(), torch.finfo(y.dtype).eps
    largest = size.amax() if y.numel() else size.sum()
    largest = torch.where(largest > 0.0, largest, 1.0)
    weights = 0.5 + (torch.arange(y.numel(), device=y.device) * 0.6180339887498949).frac().reshape(y.shape)
    return weights.to(size) * math.sqrt(eps) * (size + (crossing.h * crossing.slope).abs() + 1e-3 * largest)


class _LostGradients(TorchFunctionMode):
    """Notices operations that lose the gradient of their input: comparisons, and reads of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.requires_grad for x in args):
            discrete = isinstance(out, Tensor) and not (out.is_floating_point() or out.is_complex())
            self.lost = self.lost or discrete or getattr(func, "__name__", "") in READS
        return out
