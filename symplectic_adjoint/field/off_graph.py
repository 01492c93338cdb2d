"""Calls of func made as autograd would make them, where func shows the difference."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = Callable[[Tensor, Tensor], Tensor]
_LACKS_GRAPH = "does not require grad"
"""What torch's errors say about torch.autograd.grad without a graph."""


class OffGraph:
    """How func is called in one solve where no graph is kept: without grad mode, unless it needs that.

    graphless: the error of func for a y that requires a gradient, if it takes one that does not (it converts y to
    NumPy, say) and uses no parameter: then autograd would never make a graph, and no call may. differentiates: whether
    func differentiates by y and relies on its caller for the graph.
    """

    def __init__(self) -> None:
        self.graphless: RuntimeError | None = None
        self.differentiates = False

    def __call__(self, call: Call, t: Tensor, y: Tensor) -> Tensor:
        """Return call(t, y), for a y that requires no gradient."""
        if self.graphless is None:
            return call(t, y)
        with torch.enable_grad():
            k = call(t, y)
        if k.requires_grad:
            raise self.graphless
        return k

    def value(self, func: Callable[..., Any], t: Tensor, y: Tensor) -> Any:
        """Return func(t, y); if func turns out to differentiate by y, from a call on a graph made only for that."""
        keeps_graph, failure = torch.is_grad_enabled(), None
        ready = keeps_graph and y.requires_grad
        if ready or not self.differentiates:
            try:
                return func(t, y)
            except RuntimeError as error:
                if ready or _LACKS_GRAPH not in str(error):
                    raise
                failure = error
        try:
            with torch.enable_grad():
                k = func(t, y.detach().requires_grad_())
        except RuntimeError as error:
            raise failure or error from None
        if failure is not None:
            self.differentiates = True
            failure.with_traceback(None)  # it refers to this frame
        return k if keeps_graph or not isinstance(k, Tensor) else k.detach()

    def searched(self, call: Call, t: Tensor, y: Tensor, *, through_y: bool, wanted: bool) -> tuple[Tensor, Tensor]:
        """Return the y that func is passed for a search of its graph, and call(t, y) on that graph.

        through_y: whether that y requires a gradient. wanted: whether its gradient is wanted; if not, a func that does
        not take it is passed one that requires none.
        """
        # A clone, so that a change in place raises our error, not torch's error for a leaf.
        given = y.detach().requires_grad_(through_y).clone()
        try:
            return given, call(t, given)
        except RuntimeError as error:
            if wanted or not through_y or type(error) is not RuntimeError:
                raise
            failure = error
        given = y.detach().clone()
        try:
            k = call(t, given)
        except RuntimeError:
            raise failure from None
        if k.requires_grad:  # so would the next y, for autograd
            raise failure
        self.graphless = failure.with_traceback(None)  # it refers to this frame
        return given, k
