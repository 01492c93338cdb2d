"""Calls of func for a value without a graph, made as autograd would make them where func shows the difference."""

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[[Tensor, Tensor], Tensor]


class OffGraph:
    """How func is called in one solve where no graph is kept: without grad mode, unless it needs that.

    graphless: the error of func for a y that requires a gradient, if it takes one that does not (it converts y to
    NumPy, say) and uses no parameter: then autograd would never make a graph, and no call may.
    """

    def __init__(self) -> None:
        self.graphless: RuntimeError | None = None

    def __call__(self, call: Call, t: Tensor, y: Tensor) -> Tensor:
        """Return call(t, y), for a y that requires no gradient."""
        if self.graphless is None:
            return call(t, y)
        with torch.enable_grad():
            k = call(t, y)
        if k.requires_grad:
            raise self.graphless
        return k

    def searched(self, call: Call, t: Tensor, y: Tensor, *, through_y: bool, only: bool) -> tuple[Tensor, Tensor]:
        """Return the y that func is passed for a search of its graph, and call(t, y) on that graph.

        through_y: whether that y requires a gradient. only: whether another one is out of the question; if not, it is
        passed to a func that does not take the first.
        """
        given = _passed(y, through_y)
        try:
            return given, call(t, given)
        except RuntimeError as error:
            if only or type(error) is not RuntimeError:
                raise
            failure = error
        given = _passed(y, not through_y)
        try:
            k = call(t, given)
        except RuntimeError:
            raise failure from None
        if through_y and k.requires_grad:  # so would the next y, for autograd
            raise failure
        failure = failure.with_traceback(None)  # which refers to this frame
        if through_y:
            self.graphless = failure
        return given, k


def _passed(y: Tensor, requires_grad: bool) -> Tensor:
    """Return a clone, so that a change in place raises our error, not torch's error for a leaf."""
    return y.detach().requires_grad_(requires_grad).clone()
