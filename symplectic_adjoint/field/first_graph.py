"""The graph of a solve's first f call, which the backward pass finds again where it evaluates f there.

A flag that func reads may change its derivative and not its value: func then detaches a part. And func may have kept a
value that a later call, which had no graph, computed from a parameter. Comparing values finds neither.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import Node

from symplectic_adjoint.errors import FunctionChanged
from symplectic_adjoint.field.graph import walk_edges
from symplectic_adjoint.field.times import Time

_OF_SCRIPTS = "DifferentiableGraph"
"""TorchScript makes such nodes from its second or third call on."""


class FirstGraph:
    """The number of edges in the graph of the first f call, and where that call was."""

    def __init__(self) -> None:
        self._t: float | None = None
        self._address = 0
        self._edges = 0

    def note(self, k: Tensor, t: Time, y: Tensor, known: Sequence[Tensor]) -> None:
        """Note the graph of k = f(t, y), the first value. known: the tensors at which it ends."""
        if self._t is None and isinstance(t, float):
            self._t, self._address, self._edges = t, y.data_ptr(), edges_of(k, known)

    def is_at(self, t: Time) -> bool:
        """Return whether t is the time of the first call."""
        return isinstance(t, float) and t == self._t

    def exceeds(self, k: Tensor, known: Sequence[Tensor]) -> bool:
        """Return whether it has more edges than k's graph."""
        return self._edges > edges_of(k, known)

    def differs(self, k: Tensor, y: Tensor, known: Sequence[Tensor]) -> bool:
        """Return whether the graph of k is another one, although y is the state of the first call."""
        if edges_of(k, known) == self._edges or y.data_ptr() != self._address:
            return False
        return not any(_OF_SCRIPTS in node.name() for node in _nodes_of(k, known))

    def changed(self) -> FunctionChanged:
        """Return the error that says that f there is not the f of the forward pass."""
        return FunctionChanged(
            f"func, evaluated again in the backward pass at t = {self._t:.9g}, has another graph than in the forward "
            "pass: something that it reads, such as a flag by which it detaches a part, has changed in between, and "
            "the gradient would be wrong. Bind the value in a default argument (lambda t, y, u=u: ...), hold it in an "
            'attribute of func\'s module, or use gradient="backprop"',
            self._t,
        )


def edges_of(k: Tensor, known: Sequence[Tensor]) -> int:
    """Return the number of edges in k's graph up to the known tensors."""
    return sum(one is not None for node in _nodes_of(k, known) for one, _ in node.next_functions)


def _nodes_of(k: Tensor, known: Sequence[Tensor]) -> set[Node]:
    ends = {(x.grad_fn, x.output_nr) for x in known if x.grad_fn is not None}
    return {edge[0] for edge in walk_edges([(k.grad_fn, k.output_nr)], ends) if edge not in ends}
