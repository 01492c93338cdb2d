"""A solve as a layer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from symplectic_adjoint.api import odeint


class NeuralODE(nn.Module):
    """y0, t -> ys of dy/dt = func(t, y), with the keywords of odeint fixed beforehand.

    func: a module (a submodule of this one then) or any function. ODE layers are wrapped in
    DistributedDataParallel like any other module.
    """

    def __init__(self, func: Callable[..., Any], **keywords: Any):
        super().__init__()
        self.func = func
        self.keywords = keywords

    def forward(self, y0: Any, t: Tensor) -> Any:
        """ys, of shape (len(t), *y0.shape) or y0's structure of those; what odeint returns."""
        return odeint(self.func, y0, t, **self.keywords)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.keywords.items())
