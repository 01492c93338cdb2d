"""Whether the host may read a device. A read waits for everything that a card was given to do.

While a CUDA stream is captured (torch.cuda.graph, torch.cuda.make_graphed_callables) nothing is computed, so there is
nothing to read, and a read would make the capture fail.
"""

from typing import Any, NoReturn

import torch
from torch import Tensor

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.transforms import batched

CAPTURABLE = frozenset({"cuda"})
"""The types of devices whose work can be captured."""


def is_capturing(device: torch.device) -> bool:
    """Return whether the work given to this device is being captured."""
    return device.type in CAPTURABLE and torch.cuda.is_current_stream_capturing()


def waits(x: Tensor) -> bool:
    """Return whether the host waits if it reads x, because x lies on a device that works beside it."""
    return x.device.type != "cpu"


def can_read(x: Tensor) -> bool:
    """Return whether x has values that the host may read: it has none under vmap, and none yet during a capture."""
    return not batched(x) and not is_capturing(x.device)


def require_readable(name: str, x: Any) -> None:
    """Raise UnsupportedCombination, before x is read, if it is a tensor that cannot be read during a capture."""
    if isinstance(x, Tensor) and is_capturing(x.device):
        raise UnsupportedCombination(
            f"{name} lies on {x.device}, which the host cannot read while a CUDA stream is captured: give it in host "
            "memory (.cpu(), before the capture)"
        )


def refuse_capture(what: str) -> NoReturn:
    """Raise UnsupportedCombination: `what` does not work during a capture. It ends with what to do instead."""
    raise UnsupportedCombination(
        f"a CUDA stream is being captured, which does not work with {what}, or solve outside of the capture"
    )


def shown(t: Tensor) -> str:
    """Return a time for a message."""
    return f"{t.item():.9g}" if can_read(t) else "(not to be read during a capture)"
