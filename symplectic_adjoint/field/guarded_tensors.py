"""The tensors that func reads, which may not change between the passes."""

from collections.abc import Callable, Iterable

from torch import Tensor

from symplectic_adjoint.errors import FunctionChanged


class GuardedTensors:
    """Tensors that func read in the forward pass, with the addresses that their values had there.

    Autograd counts changes in place (see `saved`), but not an assignment of .data, as vector_to_parameters makes.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        self._addresses = [(x, _address(x)) for x in tensors]

    @property
    def saved(self) -> list[Tensor]:
        """Those to pass to save_for_backward, so that a change in place before the backward pass raises."""
        return [x for x, _ in self._addresses if not x.is_inference()]

    def require_unmoved(self, name_of: Callable[[Tensor], str]) -> None:
        """Raise FunctionChanged, with its name, if a tensor's values lie elsewhere now."""
        for x, address in self._addresses:
            if _address(x) != address:
                raise FunctionChanged(
                    f"{name_of(x)} got other values between the forward pass and the backward pass (its .data was "
                    "assigned, as vector_to_parameters and module.to do): the gradient would be that of no solve. "
                    "Assign it after the backward pass"
                )


def _address(x: Tensor) -> int | None:
    try:
        return x.data_ptr()
    except RuntimeError:  # a tensor without storage of its own, such as a fake one
        return None
