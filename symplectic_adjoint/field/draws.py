"""Random numbers that func draws while a CUDA stream is captured, where no generator can be put back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from symplectic_adjoint._torch_internals import DispatchMode
from symplectic_adjoint.errors import UnsupportedCombination

SWITCHES = {"dropout_p": 0.0, "training": False, "train": False}
"""Arguments of operators, and the value with which they draw nothing."""


class DrawsRefused(DispatchMode):
    """While this mode is active, an operator that would draw random numbers raises UnsupportedCombination instead."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            raise refused(f" ({func})")
        return func(*args, **kwargs)


def refused(operator: str = "") -> UnsupportedCombination:
    """Return the error for a func that draws during a capture. operator: the one that draws, in brackets."""
    return UnsupportedCombination(
        f"func draws random numbers{operator} while a CUDA stream is captured: every call of a solve must draw the "
        "same, and no generator can be put back during a capture. Draw the noise before the solve and let func read "
        "it, turn dropout off (func.eval()), or solve outside of the capture"
    )


def _draws(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call of an operator that may draw does: not with dropout off."""
    arguments = operator._schema.arguments
    given = {x.name: x.default_value for x in arguments}
    given |= {x.name: value for x, value in zip(arguments, args, strict=False)}
    given |= kwargs
    return not any(name in given and given[name] == off for name, off in SWITCHES.items())
