"""The operators of torch that a CUDA graph cannot repeat: those that draw random numbers or make the host wait."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_UNMARKED_READS = ("aten::_linalg_check_errors",)
"""Operators that read a value on the host, though torch does not mark them as such."""

_SWITCHES = {"dropout_p": 0.0, "training": False, "train": False}
"""Arguments of operators that draw, and the value with which they draw nothing."""

_DEPENDS = "has a result whose shape depends on values"


def arguments_of(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operator's call by name, and the defaults of the others."""
    arguments = operator._schema.arguments
    given = {x.name: x.default_value for x in arguments}
    return given | {x.name: value for x, value in zip(arguments, args, strict=False)} | dict(kwargs)


def draws(operator: Any, given: Mapping[str, Any]) -> bool:
    """Return whether an operator draws random numbers: not with dropout off."""
    drawing = torch.Tag.nondeterministic_seeded in operator.tags
    return drawing and not any(name in given and given[name] == off for name, off in _SWITCHES.items())


def why_it_waits(operator: Any, given: Mapping[str, Any]) -> str | None:
    """Return what makes the host wait for an operator on a card, in words; None if nothing does."""
    name = operator.name().partition(".")[0]
    if torch.Tag.data_dependent_output in operator.tags or name in _UNMARKED_READS:
        return "reads a value on the host"
    if name in ("aten::index", "aten::index_put", "aten::index_put_"):
        return _DEPENDS if _by_mask(given) else None
    if torch.Tag.dynamic_output_shape in operator.tags:
        return _DEPENDS
    return _why_a_copy_waits(given) if name in ("aten::_to_copy", "aten::copy_") else None


def _by_mask(given: Mapping[str, Any]) -> bool:
    """Return whether an index is a mask. Assigning one number to a mask is no such index: torch fills it in place."""
    masks = [x for x in given["indices"] if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)]
    fills = "values" in given and len(masks) == 1 and given["values"].numel() == 1
    return bool(masks) and not fills


def _why_a_copy_waits(given: Mapping[str, Any]) -> str | None:
    if "src" in given:
        source, to = given["src"].device, given["self"].device
        if to.type == "cpu" and given["non_blocking"] and given["self"].is_pinned():  # what a program itself returns
            return None
    else:
        source, to = given["self"].device, torch.device(given["device"] or given["self"].device)
    if source.type == to.type:
        return None
    return f"copies a tensor from {source.type} to {to.type} (make it a buffer of func's module, on func's device)"
