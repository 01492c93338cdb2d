"""The search of func's graphs for tensors whose gradient would be lost."""

import gc
from collections.abc import Sequence
from copy import copy
from typing import Self

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from symplectic_adjoint._torch_internals import nodes_made
from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.graph import unknown_leaves
from symplectic_adjoint.field.parameter_aliases import ParameterAliases


class LostGradientSearch:
    """The search for tensors that require a gradient and that are neither parameters nor known to be frozen.

    Once started, the next call's graph is searched, and from then on every graph of another size.
    """

    def __init__(self, params: Sequence[Tensor], frozen: Sequence[Tensor], forward_state: ForwardState):
        self.active = False
        self.due = False
        """Whether the next call is to be searched, even where it would have no graph."""
        self.retains = False
        """Whether the graph of one call is needed by the next: func uses what was computed before it was called."""
        self._params, self._frozen, self._forward_state = params, frozen, forward_state
        self._sizes: set[int] = set()
        self._reached: set[int] = set()
        """Which of params the searched graphs lead to."""
        self._reached_before: set[int] = set()

    def start(self) -> None:
        """Search the next call."""
        self.active = self.due = True

    def restart(self) -> None:
        """Search the next call: from here on f may be another function with a graph of the same size."""
        self.due = self.active
        self._sizes.clear()

    def again(self) -> Self:
        """Return a search for another pass, which may find that func uses other tensors by then."""
        other = copy(self)
        other._sizes = set()
        other._reached_before, other._reached = self._reached, set()
        return other

    def examine(self, k: Tensor, y: Tensor, t: Tensor, made_before: int, aliases: ParameterAliases | None) -> None:
        """Raise LostGradient for an unknown leaf of k's graph, unless a graph of its size was searched before.

        made_before: how many nodes autograd had made when f was called. aliases: what stands in for the parameters.
        """
        size = nodes_made() - made_before
        if size in self._sizes:
            return
        self._sizes.add(size)

        def note(node: Node) -> None:
            self.retains = self.retains or node._sequence_nr() < made_before
            self._forward_state.sees(node)

        params = self._params
        for p in params:
            if p.grad_fn is not None:
                self._forward_state.sees(p.grad_fn)
        leaves = params if aliases is None else aliases.leaves
        known, met = (*params, *leaves, *self._frozen, y, t), set[int]()
        any_lost = bool(unknown_leaves(k, known, note, met))
        self._reached |= {i for i, pair in enumerate(zip(params, leaves, strict=True)) if met & set(map(id, pair))}
        if aliases is not None and any(id(p) in met for p in params):
            aliases.bypassed = True
        if any_lost:
            self._refuse_lost(k, known)

    def _refuse_lost(self, k: Tensor, known: tuple[Tensor, ...]) -> None:
        gc.collect()  # a leaf that only a cycle of func's garbage still holds is func's own
        for lost in unknown_leaves(k, known):
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it (or what is computed from it outside func) as odeint(..., params=(tensor,)), or detach() it."
            )

    def refuse_forgotten(self, bars: Sequence[Tensor | None]) -> None:
        """Raise LostGradient where the solve's first graph led to a parameter and none of the backward pass did.

        bars: the gradient of each of params, every f call of the solve having been transposed.
        """
        for i, (p, bar) in enumerate(zip(self._params, bars, strict=True)):
            if bar is None and i in self._reached_before - self._reached and p.requires_grad:
                raise LostGradient(
                    f"func used a parameter of shape {tuple(p.shape)} when it was first called, and later only what it "
                    "had computed from it and kept: the gradient would be lost. Let func compute it anew in each "
                    "call, or compute it outside func and pass it as odeint(..., params=(tensor,))"
                )


def refuse_bypass(
    aliases: ParameterAliases, reached: Sequence[Tensor | GradientEdge], inputs: Sequence[Tensor]
) -> None:
    """Raise LostGradient where a graph leads to a parameter itself and earlier ones led to its alias only."""
    for edge in reached:
        lost = {id(x) for x in unknown_leaves(edge, (*aliases.leaves, *inputs))} & {id(p) for p in aliases.params}
        for p in aliases.params:
            if id(p) in lost:
                raise LostGradient(
                    f"func reaches a parameter of shape {tuple(p.shape)} as an attribute of its module in some calls "
                    "and by another way in others: its gradient would be lost. Let it reach it one way, or take "
                    'gradient="backprop"'
                )
