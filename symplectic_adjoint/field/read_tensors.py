"""The tensors that func reads in a call: those that reach an operation of torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_METADATA: frozenset[Any] = frozenset(
    getattr(torch.Tensor, name).__get__
    for name in (
        "shape",
        "dtype",
        "device",
        "requires_grad",
        "ndim",
        "is_leaf",
        "grad_fn",
        "layout",
        "is_cuda",
    )
) | {torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.is_floating_point, torch.Tensor.is_complex}
"""Functions that do not read the values of a tensor."""


class Reads:
    """Those of some tensors that func has read.

    hidden: whether func has parts whose operations torch does not show; then any of the tensors may be read.
    """

    def __init__(self, tensors: Sequence[Tensor], *, hidden: bool):
        self._tensors, self._hidden = tensors, hidden
        self._ids: set[int] = set()

    @property
    def found(self) -> list[Tensor]:
        """The tensors that func has read, each once."""
        return list({id(x): x for x in self._tensors if self._hidden or id(x) in self._ids}.values())

    def watch(self) -> AbstractContextManager[Any]:
        """Return a context in which the tensors that func reads are noted."""
        return nullcontext() if self._hidden or not self._tensors else _ReadMode(self._ids)


class _ReadMode(TorchFunctionMode):
    """While this mode is active, the ids of all tensors whose values are read are added to `ids`."""

    def __init__(self, ids: set[int]) -> None:
        super().__init__()
        self.ids = ids

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _METADATA:
            self.ids.update(id(x) for x in _tensors_in((*args, *kwargs.values())))
        return func(*args, **kwargs)


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, tuple | list):
            yield from _tensors_in(x)
        elif isinstance(x, dict):
            yield from _tensors_in(x.values())
