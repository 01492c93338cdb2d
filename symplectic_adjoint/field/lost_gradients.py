"""The search of func's graphs for tensors whose gradient would be lost."""

import gc
from collections.abc import Sequence
from copy import copy
from typing import Self

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from symplectic_adjoint._torch_internals import nodes_made
from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.cotangent_scale import computes_in_float16
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.graph import find_unknown_leaves
from symplectic_adjoint.field.parameter_aliases import ParameterAliases


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
        self.found_float16 = False
        """Whether a searched graph computes in float16."""
        self._params, self._frozen, self._forward_state = params, frozen, forward_state
        self._sizes: set[int] = set()
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
        other._sizes = set()
        other._reached_before, other._reached = self._reached, set()
        return other

    def check_graph(self, k: Tensor, y: Tensor, t: Tensor, nodes_before: int, aliases: ParameterAliases | None) -> None:
        """Raise LostGradient for an unknown leaf of k's graph, unless a graph of its size was searched before.

        nodes_before: how many nodes autograd had created when f was called. aliases: those that replace the parameters.
        """
        size = nodes_made() - nodes_before
        if size in self._sizes:
            return
        self._sizes.add(size)

        def visit(node: Node) -> None:
            self.must_retain = self.must_retain or node._sequence_nr() < nodes_before
            self.found_float16 = self.found_float16 or computes_in_float16(node)
            self._forward_state.mark_reached(node)

        params = self._params
        for p in params:
            if p.grad_fn is not None:
                self._forward_state.mark_reached(p.grad_fn)
        leaves = params if aliases is None else aliases.leaves
        known, reached = (*params, *leaves, *self._frozen, y, t), set[int]()
        any_lost = bool(find_unknown_leaves(k, known, visit, reached))
        self._reached |= {i for i, pair in enumerate(zip(params, leaves, strict=True)) if reached & set(map(id, pair))}
        if aliases is not None and any(id(p) in reached for p in params):
            aliases.bypassed = True
        if any_lost:
            self._refuse_lost(k, known)

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
                raise LostGradient(
                    f"func used a parameter of shape {tuple(p.shape)} in its first call, and in later ones only a "
                    "value that it had computed from it and kept: the gradient would be lost. Compute the value anew "
                    "in each call, or outside func and pass it as odeint(..., params=(tensor,))"
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
