"""Calls of func while a CUDA stream is captured: what a graph cannot repeat is refused before it is done.

A read by the host would end the capture, and leave the process without random numbers (torch's capture does not recover
from a failure). A draw would differ from one call to the next, because no generator can be put back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import DispatchMode
from symplectic_adjoint.errors import UnsupportedCombination

READS = frozenset(
    f"aten::{name}"
    for name in ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim")
)
"""Operators whose result depends on values that the host must read."""

COPIES = frozenset({"aten::_to_copy", "aten::copy_"})

SWITCHES = {"dropout_p": 0.0, "training": False, "train": False}
"""Arguments of operators that draw, and the value with which they draw nothing."""


class CapturedCall(DispatchMode):
    """While this mode is active, an operator that draws or waits raises UnsupportedCombination instead."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = _by_name(func, args, kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(given):
            raise refused_draw(f" ({func})")
        if _waits(func, given):
            raise UnsupportedCombination(
                f"func makes the host read or write the card ({func}) while a CUDA stream is captured, and a graph "
                "cannot repeat that: let func calculate with tensors on the card only (torch.where for a condition, a "
                "buffer for a constant), or solve outside of the capture"
            )
        return func(*args, **(kwargs or {}))


def refused_draw(operator: str = "") -> UnsupportedCombination:
    """Return the error for a func that draws during a capture. operator: the one that draws, in brackets."""
    return UnsupportedCombination(
        f"func draws random numbers{operator} while a CUDA stream is captured: every call of a solve must draw the "
        "same, and no generator can be put back during a capture. Draw the noise before the solve and let func read "
        "it, turn dropout off (func.eval()), or solve outside of the capture"
    )


def _by_name(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operator's call, and the defaults of the others."""
    arguments = operator._schema.arguments
    given = {x.name: x.default_value for x in arguments}
    return given | {x.name: value for x, value in zip(arguments, args, strict=False)} | dict(kwargs)


def _draws(given: Mapping[str, Any]) -> bool:
    """Return whether an operator that may draw does: not with dropout off."""
    return not any(name in given and given[name] == off for name, off in SWITCHES.items())


def _waits(operator: Any, given: Mapping[str, Any]) -> bool:
    """Return whether the host waits for this operator on a card."""
    name = operator.name().partition(".")[0]
    if name in READS:
        return any(isinstance(x, Tensor) and x.device.type != "cpu" for x in given.values())
    if name == "aten::index":
        masks = (x.dtype in (torch.bool, torch.uint8) for x in given["indices"] if x is not None)
        return given["self"].device.type != "cpu" and any(masks)
    if name in COPIES and not given["non_blocking"]:
        here, there = given["self"].device, given["src"].device if "src" in given else given["device"]
        return there is not None and (here.type == "cpu") != (torch.device(there).type == "cpu")
    return False
