"""Aliases that stand in for parameters during a sweep: autograd sums the VJPs of all stages in place in their .grad.

The parameters' part of a gradient is a sum over every stage of every step. torch.autograd.grad would return a second
tensor like theta for each term, to be added to the sum. Autograd adds to the .grad of a leaf in place, layer by layer,
so that the terms of all parameters never exist at once. Measured: a peak of 18.0 MiB with aliases, 25.7 MiB without.

The parameters' own .grad cannot be used: the user's hooks on it (an optimizer's step, a reduction over processes) would
be called for every term.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import ne
from threading import get_ident

import torch
from torch import Tensor, nn

from symplectic_adjoint._torch_internals import foreach_add_
from symplectic_adjoint.field.module_tensors import ModuleTensor, installed
from symplectic_adjoint.field.sparse import is_sparse

REPLACEABLE = (Tensor, nn.Parameter)
"""The types of tensors that a detached alias can replace. An alias of a subclass may lack what the subclass adds."""

_IN_PLACE: dict[int, list["ParameterAliases"]] = {}
"""By thread, the aliases of its sweeps that run now, the innermost last."""


def original(x: Tensor) -> Tensor:
    """Return the parameter, if x is an alias that the user found in a module during a sweep of another thread.

    An alias from a sweep of this thread is what func, called there, solves with: it is returned.
    """
    while (p := vars(x).get("aliased")) is not None:
        if any(x is leaf for aliases in _IN_PLACE.get(get_ident(), ()) for leaf in aliases.leaves):
            break
        x = p
    return x


class ParameterAliases:
    """Leaves that share the parameters' memory, to replace them in func's modules during a sweep.

    locations: for each parameter the places in modules that hold it. summing: whether VJPs add to their .grad.
    """

    def __init__(self, params: Sequence[Tensor], locations: Sequence[Sequence[ModuleTensor]], *, summing: bool = True):
        self.params = params
        self.leaves = tuple(map(_alias, params))
        self.module_tensors = [
            ModuleTensor(found.holder, found.name, leaf)
            for leaf, places in zip(self.leaves, locations, strict=True)
            for found in places
        ]
        """The aliases, at each place where a module is to hold one."""
        self.trainable = [leaf for leaf in self.leaves if summing and leaf.requires_grad]
        # Set .grad now: autograd would otherwise keep the first term itself as .grad, and a term may be a view of the
        # cotangent, whose memory another parameter's term may share.
        self.totals = [torch.zeros_like(leaf) for leaf in self.trainable]
        """The .grad of every trainable leaf. Code other than autograd may add to it: see mark_added."""
        for leaf, total in zip(self.trainable, self.totals, strict=True):
            leaf.grad = total
        self._first_versions = [total._version for total in self.totals]
        self._last_versions = self._first_versions
        self._patterns: set[tuple[bool, ...]] = set()
        self._added: set[int] = set()
        self.bypassed = False
        """Whether func was seen to reach a parameter other than through its modules."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Replace the parameters by the aliases in func's modules."""
        mine = _IN_PLACE.setdefault(get_ident(), [])
        mine.append(self)
        try:
            with installed(self.module_tensors):
                yield
        finally:
            mine.remove(self)
            if not mine:
                del _IN_PLACE[get_ident()]

    @staticmethod
    def can_replace(params: Sequence[Tensor], locations: Sequence[Sequence[ModuleTensor]]) -> bool:
        """Return whether every parameter is held by a module, where an alias can replace it, and is not sparse."""
        return all(locations) and all(type(p) in REPLACEABLE and not is_sparse(p) for p in params)

    def reached_anew(self) -> bool:
        """Return whether the last VJP added to a set of leaves that no earlier VJP of this sweep added to.

        False after the first VJP.
        """
        versions = [total._version for total in self.totals]
        reached = tuple(map(ne, versions, self._last_versions))
        self._last_versions = versions
        return self._is_new(reached)

    def add(self, terms: Sequence[Tensor | None]) -> bool:
        """Add a VJP's terms to the totals, one entry per trainable leaf, and return what reached_anew does."""
        reached = tuple(x is not None for x in terms)
        pairs = [(total, x) for total, x in zip(self.totals, terms, strict=True) if x is not None]
        if pairs:
            foreach_add_([total for total, _ in pairs], [x for _, x in pairs])
        first = not self._patterns
        anew = self._is_new(reached)
        if first or anew:
            self.mark_added(reached)
        return anew

    def _is_new(self, reached: tuple[bool, ...]) -> bool:
        if reached in self._patterns:
            return False
        self._patterns.add(reached)
        return len(self._patterns) > 1

    def mark_added(self, which: Sequence[bool]) -> None:
        """Record the totals to which code other than autograd has added, one entry per trainable leaf."""
        self._added |= {id(leaf) for leaf, added in zip(self.trainable, which, strict=True) if added}

    def grads(self) -> list[Tensor | None]:
        """Return the sums, one entry per parameter, None if nothing was added to it."""
        of_autograd = zip(self.trainable, self._first_versions, self.totals, strict=True)
        added = self._added | {id(leaf) for leaf, version, total in of_autograd if total._version != version}
        return [leaf.grad if id(leaf) in added else None for leaf in self.leaves]


def _alias(p: Tensor) -> Tensor:
    """Return p without its history, hooks and .grad; frozen if p has been frozen since the forward pass."""
    alias = p.detach()
    if isinstance(p, nn.Parameter):
        alias = nn.Parameter(alias, requires_grad=p.requires_grad)
        vars(alias).update(vars(p))  # attributes that a layer sets on its parameters
    vars(alias)["aliased"] = p  # see original()
    return alias.requires_grad_(p.requires_grad)


def _put_back_other_threads() -> None:
    """In a forked process, put back what threads that do not exist there had replaced."""
    for thread in set(_IN_PLACE) - {get_ident()}:
        for aliases in reversed(_IN_PLACE.pop(thread)):
            for x in aliases.module_tensors:
                x.holder[x.name] = vars(x.tensor)["aliased"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_put_back_other_threads)
