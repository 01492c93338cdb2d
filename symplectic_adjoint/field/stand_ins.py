"""Leaves that stand in for tensors with a history, so that the VJPs of f end at them.

A tensor that was computed outside func (by an encoder, say) is an input of the solve. If func used the tensor itself, a
VJP would run through it into what it was computed from, which the caller's own backward pass does later, once.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from symplectic_adjoint.field.module_tensors import ModuleTensor
from symplectic_adjoint.field.parameter_aliases import REPLACEABLE


class StandIns:
    """The stand-ins of one solve, for those of the tensors at `places` that have a history."""

    def __init__(self, places: Sequence[ModuleTensor]):
        self._places = [x for x in places if x.tensor.grad_fn is not None and type(x.tensor) in REPLACEABLE]
        self._leaves = {id(x.tensor): x.tensor.detach().requires_grad_() for x in self._places}

    @property
    def originals(self) -> list[Tensor]:
        """The tensors that have a stand-in, each once."""
        return list({id(x.tensor): x.tensor for x in self._places}.values())

    @property
    def are_seen(self) -> bool:
        """Whether a stand-in lies in a module, where other threads see it."""
        return any(isinstance(x.holder, dict) for x in self._places)

    def leaf_of(self, x: Tensor) -> Tensor:
        """Return the stand-in of a tensor; the tensor itself if it has none."""
        return self._leaves.get(id(x), x)

    def keep(self, ids: Container[int]) -> None:
        """Drop all but those of the tensors with these ids: one that func does not use may hold an earlier solve."""
        self._places = [x for x in self._places if id(x.tensor) in ids]
        self._leaves = {id(x.tensor): self._leaves[id(x.tensor)] for x in self._places}

    @contextmanager
    def installed(self, stand_in: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
        """Put the stand-ins in their places; at the end put the originals back where func has not put another tensor.

        stand_in: makes other stand-ins, for this block only.
        """
        leaves = {id(x): self.leaf_of(x) if stand_in is None else stand_in(x) for x in self.originals}
        for x in self._places:
            x.holder[x.name] = leaves[id(x.tensor)]
        try:
            yield
        finally:
            for x in self._places:
                if x.holder.get(x.name) is leaves[id(x.tensor)]:
                    x.holder[x.name] = x.tensor
