"""Calls of func while a CUDA stream is captured: what a graph cannot repeat is refused before it is done.

A read by the host would end the capture, and leave the process without random numbers (torch's capture does not recover
from a failure). A draw would differ from one call to the next, because no generator can be put back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from symplectic_adjoint._torch_internals import DispatchMode
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.host_operations import arguments_of, draws, why_it_waits
from symplectic_adjoint.field.host_reads import waits


class CapturedCall(DispatchMode):
    """While this mode is active, an operator that draws or waits raises UnsupportedCombination instead."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = arguments_of(func, args, kwargs or {})
        if draws(func, given):
            raise refused_draw(f" ({func})")
        to = given.get("device")
        on_a_card = any(isinstance(x, Tensor) and waits(x) for x in given.values()) or (to and to.type != "cpu")
        if on_a_card and not given.get("non_blocking") and why_it_waits(func, given) is not None:
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
