"""The tensors that func reads, which may not change between the passes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from symplectic_adjoint.errors import FunctionChanged


class GuardedTensors:
    """Tensors that func read in the forward pass, with the values that they had there.

    Autograd counts changes in place (see `saved`), but not an assignment of .data, as vector_to_parameters makes. The
    values are views, which take memory only where .data was assigned.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        self._values = [(x, x.detach() if _address(x) is not None else None) for x in tensors]

    @property
    def saved(self) -> list[Tensor]:
        """Those to pass to save_for_backward, so that a change in place before the backward pass raises."""
        return [x for x, _ in self._values if not x.is_inference()]

    def require_same(self, name_of: Callable[[Tensor], str]) -> None:
        """Raise FunctionChanged, with its name, if a tensor was assigned other values.

        Averaged weights that were swapped in for an evaluation and out again are the same.
        """
        for x, values in self._values:
            if values is not None and _address(x) != values.data_ptr() and not _equal(x, values):
                raise FunctionChanged(
                    f"{name_of(x)} was changed between the forward pass and the backward pass (its .data was "
                    "assigned, as vector_to_parameters and module.to do): the gradient would be that of no solve. "
                    "Assign it after the backward pass"
                )


def _equal(x: Tensor, values: Tensor) -> bool:
    return x.dtype == values.dtype and x.device == values.device and torch.equal(x.detach(), values)


def _address(x: Tensor) -> int | None:
    try:
        return x.data_ptr()
    except RuntimeError:  # a tensor without storage of its own, such as a fake one
        return None
