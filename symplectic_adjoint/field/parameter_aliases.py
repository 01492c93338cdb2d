"""Stand-ins for parameters, in whose .grad autograd sums a sweep's VJPs in place."""

from collections.abc import Sequence
from operator import ne

import torch
from torch import Tensor, nn

from symplectic_adjoint.field.module_tensors import ModuleTensor

REPLACEABLE = (Tensor, nn.Parameter)
"""Subclasses may know more than a detached alias of theirs would."""


class ParameterAliases:
    """Leaves that share the parameters' memory, to stand in their places in func's modules for the time of a sweep.

    A leaf's gradient is summed in place by autograd, layer by layer, where torch.autograd.grad would hand out a second
    tensor like theta. The parameters' own .grad will not do for it: users' hooks on it (an optimizer's step, a
    reduction over processes) would be called for every part.
    """

    def __init__(self, params: Sequence[Tensor], places: Sequence[Sequence[ModuleTensor]]):
        self.params = params
        self.leaves = tuple(map(_alias, params))
        self.slots = [
            ModuleTensor(slot.holder, slot.name, leaf)
            for leaf, slots in zip(self.leaves, places, strict=True)
            for slot in slots
        ]
        self.trainable = [leaf for leaf in self.leaves if leaf.requires_grad]
        # A .grad from the start: the engine would make one of the first part itself, memory and all, and a part may be
        # a view of the cotangent, which another parameter's part may be a view of as well.
        self.totals = [torch.zeros_like(leaf) for leaf in self.trainable]
        """The .grad of every trainable leaf, for others than autograd to add to."""
        for leaf, total in zip(self.trainable, self.totals, strict=True):
            leaf.grad = total
        self._versions = [total._version for total in self.totals]
        self._last = self._versions
        self._patterns: set[tuple[bool, ...]] = set()
        self._added: set[int] = set()
        self.bypassed = False
        """Whether func was seen to reach a parameter by another way than through its modules."""

    @staticmethod
    def possible(params: Sequence[Tensor], places: Sequence[Sequence[ModuleTensor]]) -> bool:
        """Whether every parameter has a place where an alias of it will be found by func."""
        return all(places) and all(type(p) in REPLACEABLE for p in params)

    def newly_reached(self) -> bool:
        """Whether the VJP that was just taken added to another set of leaves than any before it in this sweep."""
        versions = [total._version for total in self.totals]
        reached = tuple(map(ne, versions, self._last))
        self._last = versions
        if reached in self._patterns:
            return False
        self._patterns.add(reached)
        return len(self._patterns) > 1

    def added_to(self, which: Sequence[bool]) -> None:
        """Others have added to these."""
        self._added |= {id(leaf) for leaf, added in zip(self.trainable, which, strict=True) if added}

    def grads(self) -> list[Tensor | None]:
        """One entry a parameter, None where nothing was added."""
        of_autograd = zip(self.trainable, self._versions, self.totals, strict=True)
        added = self._added | {id(leaf) for leaf, version, total in of_autograd if total._version != version}
        return [leaf.grad if id(leaf) in added else None for leaf in self.leaves]


def _alias(p: Tensor) -> Tensor:
    """p without its history, hooks and .grad. One that was frozen since the forward pass is frozen too."""
    alias = p.detach()
    if isinstance(p, nn.Parameter):
        alias = nn.Parameter(alias, requires_grad=p.requires_grad)
        vars(alias).update(vars(p))  # what a layer notes on its parameters
        return alias
    return alias.requires_grad_(p.requires_grad)
