"""The places in which modules hold their tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_adjoint._torch_internals import copy_keeping_version


class ModuleTensor:
    """A tensor that a module holds, by name, in one of its dicts; as it is when this is made."""

    __slots__ = ("holder", "name", "tensor", "version")

    def __init__(self, holder: dict[str, Any], name: str, tensor: Tensor):
        self.holder, self.name, self.tensor, self.version = holder, name, tensor, _version(tensor)

    def changed(self) -> bool:
        """Whether it was written into, or is another tensor now."""
        now = self.holder.get(self.name)
        return now is not self.tensor or _version(self.tensor) != self.version


STANDARD_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Attributes that hold no tensor of the user's: a solve looks through those of every module."""


def module_tensors_in(holder: dict[str, Any], but: frozenset[str] = frozenset()) -> list[ModuleTensor]:
    return [ModuleTensor(holder, name, x) for name, x in holder.items() if name not in but and isinstance(x, Tensor)]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


@contextmanager
def in_place(slots: Sequence[ModuleTensor]) -> Iterator[None]:
    """Every slot holds its tensor, whatever it was found to hold: that is there again at the end, whatever func put."""
    found = [slot.holder.get(slot.name) for slot in slots]
    for slot, tensor in zip(slots, found, strict=True):
        if tensor is not slot.tensor:
            slot.holder[slot.name] = slot.tensor
    try:
        yield
    finally:
        for slot, tensor in zip(slots, found, strict=True):
            if slot.holder.get(slot.name) is not tensor:
                slot.holder[slot.name] = tensor


@contextmanager
def as_found(holders: Sequence[dict[str, Any]], but: frozenset[str]) -> Iterator[None]:
    """At the end the holders' tensors are those of now: what func puts there meanwhile may lead to stand-ins."""
    found = [slot for holder in holders for slot in module_tensors_in(holder, but)]
    try:
        yield
    finally:
        for slot in found:
            if slot.holder.get(slot.name) is not slot.tensor:
                slot.holder[slot.name] = slot.tensor


@contextmanager
def restored(slots: Sequence[ModuleTensor]) -> Iterator[None]:
    """The tensors are at the end what they are now."""
    tensors = [slot.holder[slot.name] for slot in slots]
    values = [None if x is None else x.clone() for x in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for slot, x, value in zip(slots, tensors, values, strict=True):
                slot.holder[slot.name] = x
                if value is not None:
                    copy_keeping_version(x, value)  # a held graph may have saved it
