"""A solve as a layer."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.api import odeint
from symplectic_adjoint.field.split_function import FuncOrPair, as_function


class NeuralODE(nn.Module):
    """The layer (y0, t) -> ys of dy/dt = func(t, y). The keywords of odeint are fixed at construction.

    func: any function, or a pair (explicit, implicit) for an additive method; a module becomes a submodule of this one.
    May be wrapped in DistributedDataParallel like any other module.
    """

    def __init__(self, func: FuncOrPair, **keywords: Any):
        super().__init__()
        self.func = as_function(func)
        if isinstance(keywords.get("params"), Iterator):  # the first call would use it up
            keywords["params"] = tuple(keywords["params"])
        self.keywords = keywords

    @untraced
    def forward(self, y0: Any, t: Tensor) -> Any:
        """Return what odeint returns: ys of shape (len(t), *y0.shape), or a structure like y0 of such tensors."""
        return odeint(self.func, y0, t, **self.keywords)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.keywords.items())
