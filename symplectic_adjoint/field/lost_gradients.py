"""The search of func's graphs for tensors whose gradient would be lost."""

import gc
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Self

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from symplectic_adjoint._torch_internals import nodes_made
from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.graph import find_unknown_leaves
from symplectic_adjoint.field.parameter_aliases import ParameterAliases

FIRST_CALLS = 4
"""How many graphs of a pass are searched whatever their size, if they lead to what was computed before the call."""


class LostGradientSearch:
    """The search for tensors that require a gradient and that are neither parameters nor known to be frozen.

    Once started, it searches the graph of the next call, and after that every graph of a new size.
    """

    def __init__(self, params: Sequence[Tensor], frozen: Sequence[Tensor], forward_state: ForwardState):
        self.active = False
        self.due = False
        """Whether the next call is to be searched, even if it would otherwise have no graph."""
        self.must_retain = False
        """Whether a call's graph must outlive its VJP, because func uses values computed before it was called."""
        self.missed: set[int] = set()
        """The params that another call reaches and the graph searched last does not. Empty in the forward pass."""
        self._params, self._frozen, self._forward_state = params, frozen, forward_state
        self._sizes: set[int] = set()
        self._searched = 0
        self._reached: set[int] = set()
        """The indices of the params that the searched graphs reach."""
        self._reached_before: set[int] = set()

    def start(self) -> None:
        """Search the next call."""
        self.active = self.due = True

    def restart(self) -> None:
        """Search the next call again: f may be a different function, with a graph of the same size."""
        self.due = self.active
        self._sizes.clear()

    def for_another_pass(self) -> Self:
        """Return a search for another pass, in which func may use other tensors."""
        other = copy(self)
        other._sizes, other._searched = set(), 0
        other._reached_before, other._reached, other.missed = self._reached, set(), set()
        return other

    def check_graph(self, k: Tensor, y: Tensor, t: Tensor, nodes_before: int, aliases: ParameterAliases | None) -> None:
        """Raise LostGradient for an unknown leaf of k's graph, unless a graph of its size was searched before.

        nodes_before: how many nodes autograd had created when f was called. aliases: those that replace the parameters.
        """
        size = nodes_made() - nodes_before
        if size in self._sizes:
            return
        older: list[Node] = []

        def visit(node: Node) -> None:
            if node._sequence_nr() < nodes_before:
                older.append(node)
            self._forward_state.mark_reached(node)

        params = self._params
        for p in params:
            if p.grad_fn is not None:
                self._forward_state.mark_reached(p.grad_fn)
        leaves = params if aliases is None else aliases.leaves
        known, reached = (*params, *leaves, *self._frozen, y, t), set[int]()
        any_lost = bool(find_unknown_leaves(k, known, visit, reached))
        self.must_retain = self.must_retain or bool(older)
        self._searched += 1
        if not older or self._searched > FIRST_CALLS:  # another graph of this size may lack what was made before
            self._sizes.add(size)
        of_params = self._indices(reached, leaves)
        self._reached |= of_params
        self.missed = (self._reached_before | self._reached) - of_params if self._reached_before else set()
        if aliases is not None and any(id(p) in reached for p in params):
            aliases.bypassed = True
        if any_lost:
            self._refuse_lost(k, known)

    def _indices(self, reached: set[int], leaves: Sequence[Tensor]) -> set[int]:
        """Return the indices of the params that are reached, themselves or through their leaves."""
        pairs = enumerate(zip(self._params, leaves, strict=True))
        return {i for i, pair in pairs if reached & set(map(id, pair))}

    def refuse_kept(self, beside: Iterable[Tensor], y: Tensor, aliases: ParameterAliases | None) -> None:
        """Raise LostGradient if the values of f just before and after a time reach a param that f there missed.

        f then used a value that it had computed from the param in an earlier call at that time, without a graph. A
        func with a branch in time reaches the param on one side at most. Clears `missed`.
        """
        missed, self.missed = self.missed, set()
        leaves = self._params if aliases is None else aliases.leaves
        for k in beside:
            reached = set[int]()
            find_unknown_leaves(k, (*self._params, *leaves, *self._frozen, y), reached=reached)
            missed &= self._indices(reached, leaves)
            if not missed:
                return
        for i in missed:
            raise LostGradient(_kept_value(self._params[i], "in some calls, and in others"))

    def _refuse_lost(self, k: Tensor, known: tuple[Tensor, ...]) -> None:
        gc.collect()  # a leaf that only cyclic garbage still holds is func's own
        for lost in find_unknown_leaves(k, known):
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it (or what is computed from it outside func) as odeint(..., params=(tensor,)), or detach() it."
            )

    def refuse_dropped(self, bars: Sequence[Tensor | None]) -> None:
        """Raise LostGradient if the forward pass reached a parameter but no call of the backward pass did.

        bars: the gradient of each of params, after every f call of the solve has been transposed.
        """
        for i, (p, bar) in enumerate(zip(self._params, bars, strict=True)):
            if bar is None and i in self._reached_before - self._reached and p.requires_grad:
                raise LostGradient(_kept_value(p, "in its first call, and in later ones"))


def _kept_value(p: Tensor, when: str) -> str:
    return (
        f"func used a parameter of shape {tuple(p.shape)} {when} only a value that it had computed from it and kept: "
        "the gradient would be lost. Compute the value anew in each call, or outside func and pass it as odeint(..., "
        "params=(tensor,))"
    )


def refuse_bypass(
    aliases: ParameterAliases, outputs: Sequence[Tensor | GradientEdge], inputs: Sequence[Tensor]
) -> None:
    """Raise LostGradient if a graph leads to a parameter itself although earlier ones led only to its alias."""
    for output in outputs:
        lost = {id(x) for x in find_unknown_leaves(output, (*aliases.leaves, *inputs))}
        for p in aliases.params:
            if id(p) in lost:
                raise LostGradient(
                    f"func reaches a parameter of shape {tuple(p.shape)} as an attribute of its module in some calls "
                    "and in another way in others: its gradient would be lost. Reach it in one way only, or use "
                    'gradient="backprop"'
                )
