"""The tensors that func reads, which may not change between the passes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from symplectic_adjoint.errors import FunctionChanged
from symplectic_adjoint.field.host_reads import can_read


class GuardedTensors:
    """Tensors that func read in the forward pass, with the values that they had there.

    Autograd counts changes in place (see `saved`), but not an assignment of .data, as vector_to_parameters makes.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        self._values = [(x, x.detach()) for x in tensors]
        """Each tensor, and a view that keeps its values if .data is assigned."""

    @property
    def saved(self) -> list[Tensor]:
        """Those to pass to save_for_backward, so that a change in place before the backward pass raises."""
        return [x for x, _ in self._values if not x.is_inference()]

    def require_unmoved(self, name_of: Callable[[Tensor], str]) -> None:
        """Raise FunctionChanged, with its name, if a tensor has other values at another address now."""
        for x, values in self._values:
            if _address(x) != _address(values) and not _equal(x.detach(), values):
                raise FunctionChanged(
                    f"{name_of(x)} was changed since the forward pass (its .data was assigned, as vector_to_parameters "
                    "and module.to do): the gradient would be that of no solve. Assign it after the backward pass"
                )


def _address(x: Tensor) -> int | None:
    try:
        return x.data_ptr()
    except RuntimeError:  # a tensor without storage of its own, such as a fake one
        return None


def _equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are known to be equal; during a capture, when they cannot be read, they are not."""
    return can_read(a) and a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
