"""The tensors that modules hold, and where."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_adjoint._torch_internals import copy_keeping_version
from symplectic_adjoint.field.held_values import is_kind
from symplectic_adjoint.field.places import Holder


class ModuleTensor:
    """A tensor that a module holds by name in one of its dicts, with its version when this object was made.

    A copied function can be the holder too.
    """

    __slots__ = ("holder", "name", "tensor", "version")

    def __init__(self, holder: Holder, name: Any, tensor: Tensor):
        self.holder, self.name, self.tensor, self.version = holder, name, tensor, _version(tensor)

    def changed(self) -> bool:
        """Return whether the tensor was changed in place or replaced since."""
        return self.holder.get(self.name) is not self.tensor or _version(self.tensor) != self.version


STANDARD_ATTRIBUTES = frozenset(vars(nn.Module()))
"""The attributes of every module. None holds a tensor of the user's; skipping them saves time in every solve."""


class _OfScriptModule(dict[str, Any]):
    """The parameters or the buffers of a ScriptModule by name, which are no dict: reads and writes go to the module."""

    def __init__(self, held: Any):
        super().__init__()
        self._held = held

    def items(self) -> Any:
        return self._held.items()

    def get(self, name: str, default: Any = None) -> Any:
        return self._held[name] if name in self._held else default  # noqa: SIM401 (it has no get)

    def __getitem__(self, name: str) -> Any:
        return self._held[name]

    def __setitem__(self, name: str, tensor: Any) -> None:
        self._held[name] = tensor


def module_tensors_in(holder: dict[str, Any]) -> list[ModuleTensor]:
    """Return the tensors among the values of a dict of parameters or buffers."""
    if not isinstance(holder, dict):
        holder = _OfScriptModule(holder)
    return [ModuleTensor(holder, name, x) for name, x in holder.items() if is_kind(x, Tensor)]


Attribute = tuple[dict[str, Any], str, Any]
"""The dict that holds a module's attributes, a name in it, and the value there."""


def attributes_of(modules: Iterable[nn.Module]) -> list[Attribute]:
    """Return the attributes of modules, except those that every module has."""
    return [(own, key, x) for own in map(vars, modules) for key, x in own.items() if key not in STANDARD_ATTRIBUTES]


def tensors_among(attributes: Iterable[Attribute]) -> list[ModuleTensor]:
    """Return the attributes that are tensors."""
    return [ModuleTensor(*one) for one in attributes if is_kind(one[2], Tensor)]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def all_held(module_tensors: Sequence[ModuleTensor]) -> bool:
    """Return whether each tensor is still in its place."""
    return all([x.holder.get(x.name) is x.tensor for x in module_tensors])  # a list is faster than a generator


@contextmanager
def installed(module_tensors: Sequence[ModuleTensor]) -> Iterator[None]:
    """Put each tensor in its place, and at the end restore the one found there, whatever func does in between."""
    found = [x.holder.get(x.name) for x in module_tensors]
    for x, tensor in zip(module_tensors, found, strict=True):
        if tensor is not x.tensor:
            x.holder[x.name] = x.tensor
    try:
        yield
    finally:
        for x, tensor in zip(module_tensors, found, strict=True):
            if x.holder.get(x.name) is not tensor:
                x.holder[x.name] = tensor


@contextmanager
def attributes_restored(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put back at the end the attributes that the modules have now, where a tensor has come or gone since.

    A new tensor may have a graph that leads to aliases, or that is freed with the pass.
    """
    before = attributes_of(modules)
    try:
        yield
    finally:
        new = {(id(own), key): (own, key, x) for own, key, x in attributes_of(modules)}
        for own, key, x in before:
            _, _, now = new.pop((id(own), key), (own, key, None))
            if now is not x and (is_kind(x, Tensor) or is_kind(now, Tensor)):
                own[key] = x
        for own, key, now in new.values():
            if is_kind(now, Tensor):
                del own[key]


@contextmanager
def values_restored(module_tensors: Sequence[ModuleTensor]) -> Iterator[None]:
    """Restore at the end the tensors that the dicts hold now, and the values that these have now."""
    tensors = [x.holder.get(x.name) for x in module_tensors]
    values = [None if tensor is None else tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for x, tensor, value in zip(module_tensors, tensors, values, strict=True):
                x.holder[x.name] = tensor
                if value is not None:
                    copy_keeping_version(tensor, value)  # a held graph may have saved the tensor
