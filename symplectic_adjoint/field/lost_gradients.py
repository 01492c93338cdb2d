"""The search of func's graphs for tensors whose gradient would be lost."""

import gc
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from enum import Enum
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from symplectic_adjoint._torch_internals import nodes_made
from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.graph import find_unknown_leaves, leads_to
from symplectic_adjoint.field.handed_out import place_of
from symplectic_adjoint.field.parameter_aliases import ParameterAliases
from symplectic_adjoint.field.sparse import gives_sparse

SAMPLES = 16
"""About how many graphs of a backward pass are searched although graphs of their size were."""

FIRST_CALLS = 4
"""How many graphs of a pass are searched whatever their size, if they lead to what was computed before the call."""


class Unknown(Enum):
    """How a search treats a tensor that requires a gradient and is not known."""

    ADOPT = "it becomes a parameter"
    REPORT = "GradientNeeded is raised"
    IGNORE = "no gradient is wanted"
    REFUSE = "LostGradient is raised"


class GradientNeeded(Exception):
    """Raised in a solve that was to need no gradient, where func uses a tensor that requires one.

    f_calls: how many calls of func had been made.
    """

    f_calls = 0


class LostGradientSearch:
    """The search for tensors that require a gradient and that are neither parameters nor known to be frozen.

    Once started, it searches the graph of the next call, and after that every graph of a new size, some others, and
    those whose VJP reaches other parameters than before. In the forward pass of a solve that can still take more
    inputs, an unknown tensor is adopted: it becomes a parameter.
    """

    def __init__(self, params: Sequence[Tensor], frozen: Sequence[Tensor], forward_state: ForwardState):
        self.active = False
        self.due = False
        """Whether the next call is to be searched, even if it would otherwise have no graph."""
        self.on_unknown = Unknown.REFUSE
        """How an unknown tensor is treated."""
        self.through_state = True
        """Whether a gradient of y0 or t is wanted, so that y requires one."""
        self.gated = False
        """Whether tensors with a history are behind a gate, so that graphs lead to them."""
        self.must_retain = False
        """Whether a call's graph must outlive its VJP, because func uses values computed before it was called."""
        self.sparse = False
        """Whether the gradient of a dense tensor is sparse."""
        self.precisions = frozenset[torch.dtype]()
        """The floating-point and complex dtypes in which the searched graphs compute."""
        self.missed: set[int] = set()
        """The ids of the params that another call reaches and the graph searched last does not.

        Empty in the forward pass.
        """
        self.params = tuple(params)
        """The parameters: those given, then those adopted."""
        self.direct: dict[int, Tensor] = {}
        """The params with a history that graphs reach themselves, because no stand-in can be put in their place."""
        self.only_held: set[int] = set()
        """The ids of the params that were adopted because func may use them later: the first graph reaches none."""
        self._frozen, self._forward_state = frozen, forward_state
        self._sizes: set[int] = set()
        self._judged = 0, len(self.params)
        """The numbers of direct params and of params at which must_retain was judged last."""
        self._calls, self._every = 0, 0
        self._patterns: set[tuple[bool, ...]] = set()
        self._searched = 0
        self._reached: set[int] = set()
        """The ids of the params that the searched graphs reach."""
        self._reached_before: set[int] = set()

    @property
    def adopting(self) -> bool:
        """Whether an unknown tensor becomes a parameter."""
        return self.on_unknown is Unknown.ADOPT

    @property
    def reached(self) -> set[int]:
        """The ids of the params that the searched graphs of this pass reach."""
        return self._reached

    @property
    def freezes_changed(self) -> bool:
        """Whether a parameter was frozen, or a frozen tensor requires a gradient, since the solve began."""
        return any(p.requires_grad for p in self._frozen) or not all(p.requires_grad for p in self.params)

    @property
    def drops(self) -> bool:
        """Whether no graph of this pass has reached a parameter that the forward pass reached: see refuse_dropped."""
        return not self._reached_before <= self._reached

    def start(self, on_unknown: Unknown, *, through_state: bool = True) -> None:
        """Search the next call."""
        self.active = self.due = True
        self.on_unknown, self.through_state = on_unknown, through_state

    def restart(self) -> None:
        """Search the next call again: f may be a different function, with a graph of the same size."""
        self.due = self.active
        self._sizes.clear()

    def for_another_pass(self) -> Self:
        """Return a search for another pass, in which func may use other tensors, and none can be adopted."""
        other = copy(self)
        other.on_unknown, other.gated, other._sizes, other._searched = Unknown.REFUSE, False, set(), 0
        other._calls, other._every, other._patterns = 0, 0, set()
        other._reached_before, other._reached, other.missed = self._reached, set(), set()
        return other

    def sample(self, calls: int, stages: int) -> None:
        """Search every so many of the next calls whatever the size of their graphs: at most one in four steps.

        A search takes about a tenth of the time of a small network's call with its VJP. Another stage each time.
        """
        self._every = max(4 * stages, calls // SAMPLES) + 1

    @property
    def wants_gradient(self) -> bool:
        """Whether there are parameters besides those that are only held."""
        return any(id(p) not in self.only_held for p in self.params)

    def in_one_thread(self) -> AbstractContextManager[Any]:
        """Return a context for a call that is searched, in which autograd within func creates nodes in this thread.

        On a card it would run in a thread of its own, which numbers its nodes from the beginning: they would seem to be
        older than the call.
        """
        return torch.autograd.set_multithreading_enabled(False) if self.active else nullcontext()

    def check_graph(self, k: Tensor, y: Tensor, t: Tensor, nodes_before: int, aliases: ParameterAliases | None) -> bool:
        """Adopt or refuse an unknown tensor in k's graph, unless a graph of its size was searched before.

        nodes_before: how many nodes autograd had created when f was called. aliases: those that replace the parameters.
        Return whether the graph has a new size. Raises GradientNeeded or LostGradient for a tensor that is not adopted.
        """
        size = nodes_made() - nodes_before
        self._calls += 1
        if size in self._sizes:
            if self._every and self._calls % self._every == 0:
                self.search_again((k,), (y, t), aliases)
            return False
        older: list[Node] = []
        dtypes = set[torch.dtype]()

        def visit(node: Node) -> None:
            if node._sequence_nr() < nodes_before:
                older.append(node)
                _refuse_handed_out(node)
            self.sparse = self.sparse or gives_sparse(node)
            dtypes.update([result.dtype for result in node._input_metadata])  # a list is faster than a generator

        state = self._forward_state
        known = self.known(aliases, y, t)
        candidates = state.candidates if self.adopting else []
        known += [x for one in candidates for x in (one, state.stand_ins.leaf_of(one))]
        reached = set[int]()
        unknown = find_unknown_leaves(k, tuple(known), visit, reached)
        self.precisions |= {x for x in dtypes if x.is_floating_point or x.is_complex}
        self.must_retain = self.must_retain or bool(older)
        self._searched += 1
        if not older or self._searched > FIRST_CALLS:  # another graph of this size may lack what was made before
            self._sizes.add(size)
        if unknown and not self.adopting:
            self._refuse_lost(k, tuple(known))
            unknown = []
        self._refuse_hidden(unknown, older)
        found = [x for x in candidates if id(x) in reached or id(state.stand_ins.leaf_of(x)) in reached]
        if self.adopting:
            held = {id(p) for p in (*self.params, *found, *unknown)}
            self._adopt([*found, *unknown, *state.reach.leaves])
            self.only_held |= {id(p) for p in self.params} - held
        self._note_reached(reached | {id(x) for x in unknown}, aliases)
        return True

    def reaches_anew(self, bars: Sequence[Tensor | None]) -> bool:
        """Return whether a VJP reached a set of parameters that no earlier one of this pass did; False for the first.

        bars: what it returned for them.
        """
        pattern = tuple(bar is None for bar in bars)
        if pattern in self._patterns:
            return False
        self._patterns.add(pattern)
        return len(self._patterns) > 1

    def search_again(
        self, outputs: Sequence[Tensor | GradientEdge], inputs: Sequence[Tensor], aliases: ParameterAliases | None
    ) -> None:
        """Search graphs that seemed to be known. Raises LostGradient for an unknown tensor.

        outputs: where they begin. inputs: the tensors at which they end, besides the parameters.
        """
        known = tuple(self.known(aliases, *inputs))
        for output in outputs:
            reached = set[int]()
            if find_unknown_leaves(output, known, reached=reached):
                self._refuse_lost(output, known)
            missed = self.missed
            self._note_reached(reached, aliases)
            self.missed = missed

    def _refuse_hidden(self, leaves: Sequence[Tensor], older: Sequence[Node]) -> None:
        """Raise LostGradient for a leaf that only a tensor computed before the call leads to, which was not found.

        That tensor itself would get no gradient, and hooks on it none either.
        """
        behind = {id(getattr(node, "variable", None)) for one in older for node, _ in one.next_functions}
        for x in leaves:
            if id(x) in behind:
                raise LostGradient(
                    f"func uses a tensor that was computed outside it from {self._forward_state.name_of(x)}, and holds "
                    "it where it is not found (inside an object of a library, or too deep in containers): its gradient "
                    "would be lost. Pass it as odeint(..., params=(tensor,)), or hold it in a variable of func"
                )

    def known(self, aliases: ParameterAliases | None, *inputs: Tensor) -> list[Tensor]:
        """Return the tensors at which graphs may end."""
        leaves = () if aliases is None else aliases.leaves
        return [*self.params, *map(self._forward_state.stand_ins.leaf_of, self.params), *leaves, *self._frozen, *inputs]

    def _adopt(self, tensors: Sequence[Tensor]) -> None:
        held = {id(p) for p in self.params}
        new = {id(x): x for x in tensors if id(x) not in held}
        self.params = (*self.params, *new.values())

    def _note_reached(self, reached: set[int], aliases: ParameterAliases | None) -> None:
        """Note which params a graph reaches, and which of those other than through the leaf in its place."""
        of_params = self._params_in(reached, aliases)
        self._reached |= of_params
        self.missed = (self._reached_before | self._reached) - of_params if self._reached_before else set()
        for p in self.params:
            if id(p) in of_params:
                self._forward_state.mark_reached(p)
            if id(p) in reached and aliases is not None:
                aliases.bypassed = True
            if id(p) in reached and p.grad_fn is not None and not self.gated:
                self._require_one_way(p)
                self.direct[id(p)] = p
        known = len(self.direct), len(self.params)
        if known != self._judged:  # a VJP visits what leads from there to other params, where no cotangent gets
            self._judged = known
            self.must_retain = self.must_retain or any(leads_to(p, self.params) for p in self.direct.values())

    def _params_in(self, reached: set[int], aliases: ParameterAliases | None) -> set[int]:
        """Return the ids of the params that are reached, themselves or through the leaves in their place."""
        leaf_of = self._forward_state.stand_ins.leaf_of
        leaves = self.params if aliases is None else aliases.leaves
        pairs = zip(self.params, leaves, strict=True)
        return {id(p) for p, leaf in pairs if reached & {id(p), id(leaf_of(p)), id(leaf)}}

    def _require_one_way(self, p: Tensor) -> None:
        """Raise LostGradient if func reaches a tensor itself as well as the stand-in in its place."""
        if self._forward_state.stand_ins.leaf_of(p) is not p:
            raise LostGradient(
                f"func reaches {self._forward_state.name_of(p)} in a variable or an attribute of its module, and in "
                "another way too (in a list, dict or object): its gradient would be lost. Reach it in one way only, "
                'or use gradient="backprop"'
            )

    def refuse_kept(
        self, beside: Iterable[tuple[Tensor, Sequence[Tensor]]], y: Tensor, aliases: ParameterAliases | None
    ) -> None:
        """Raise LostGradient if f missed a param because it used a value computed from it in an earlier call.

        beside: f just before and just after the time, each with the tensors that it read there and that func has put
        somewhere since the solve began. If both reach the param, func kept a value for that very time: a branch in time
        reaches it on one side at most. If neither does and both read one tensor, func kept that for times around.
        Clears `missed`.
        """
        missed, self.missed = self.missed, set()
        anew, behind, read_twice = missed, missed, None
        for k, read in beside:
            reached = set[int]()
            find_unknown_leaves(k, tuple(self.known(aliases, y)), reached=reached)
            reached = self._params_in(reached, aliases)
            read_twice = {id(x) for x in read} & ({id(x) for x in read} if read_twice is None else read_twice)
            anew, behind = anew & reached, behind - reached if read_twice else set()
            if not anew and not behind:
                return
        for p in self.params:
            if id(p) in anew | behind:
                raise LostGradient(_kept_value(p, "in some calls, and in others"))

    def _refuse_lost(self, k: Tensor | GradientEdge, known: tuple[Tensor, ...]) -> None:
        if self.on_unknown is Unknown.IGNORE:
            return
        gc.collect()  # a leaf that only cyclic garbage still holds is func's own
        for lost in find_unknown_leaves(k, known):
            if self.on_unknown is Unknown.REPORT:
                raise GradientNeeded
            name = self._forward_state.reach.name_of(lost)
            raise LostGradient(
                f"func uses {f'{name}, ' if name else ''}a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that "
                "requires a gradient and was not known when the solve began, for example because func uses it only at "
                "later times: its gradient would be lost. "
                "Pass it (or what is computed from it outside func) as odeint(..., params=(tensor,)), or detach() it."
            )

    def refuse_dropped(self, bars: Sequence[Tensor | None]) -> None:
        """Raise LostGradient if the forward pass reached a parameter but no call of the backward pass did.

        bars: the gradient of each of params, after every f call of the solve has been transposed.
        """
        for p, bar in zip(self.params, bars, strict=True):
            if bar is None and id(p) in self._reached_before - self._reached and p.requires_grad:
                raise LostGradient(_kept_value(p, "in its first call, and in later ones"))


def _refuse_handed_out(node: Node) -> None:
    """Raise LostGradient if func uses a tensor that it handed out in the forward pass."""
    if (place := place_of(node)) is not None:
        raise LostGradient(
            f"func used a value that it had computed in an earlier call, which had no graph, and kept in {place}: the "
            "gradient would be lost. Compute the value anew in each call, or outside func and pass it as odeint(..., "
            "params=(tensor,))"
        )


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
