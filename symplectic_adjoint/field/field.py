"""The vector field f(t, y): the user's function, its parameters, checked, counted, and transposed."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from symplectic_adjoint.errors import LostGradient, Place
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.finite import unravelled
from symplectic_adjoint.field.forward_state import Surroundings
from symplectic_adjoint.field.graph import edge_to, nodes_made, run_backward, unknown_leaves
from symplectic_adjoint.field.module_tensors import in_place
from symplectic_adjoint.field.parameter_aliases import Aliases

Time = float | Tensor
"""A time or a step size: a Python float (float64), or a 0-dim tensor where times are differentiated."""


def number(t: Time) -> float:
    """A time without its graph."""
    return t.detach().item() if isinstance(t, Tensor) else t


def ungraphed() -> AbstractContextManager[None]:
    """torch.no_grad(), which takes as long as an operation on a small state, only where it changes something."""
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()


Func = Callable[[Tensor, Tensor], Tensor]


class Pull(Protocol):
    def __call__(
        self,
        reached: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        /,
        *,
        by_params: bool = False,
    ) -> Sequence[Tensor | None]:
        """The inputs' cotangents; those of the parameters go their own way.

        by_params: whether the graph leads to the parameters themselves, even where others stand in for them now.
        """
        ...


@dataclass(slots=True)
class Linearization:
    """One f on the graph at one point, ready to be transposed. reached is None where f depends on nothing."""

    reached: GradientEdge | None
    inputs: tuple[Tensor, ...]
    """y, and t where times are differentiated."""
    k: Tensor | None
    """f(t, y) itself, detached, where it was asked for."""
    by_params: bool = True
    """Whether it leads to the parameters, or to what stood in their places when it was made."""


class Field:
    """f(t, y) with its parameters. Counts its calls here, never on the user's module.

    watch(): the next call looks for tensors that require a gradient and that are not in `params`: their
    gradient would be lost without a word, so it raises LostGradient. From then on every graph of another size
    is looked at too. frozen: tensors that func is known to use and that were to have no gradient when the solve began.
    """

    def __init__(
        self,
        func: Func,
        params: tuple[Tensor, ...],
        like: Tensor,
        *,
        frozen: tuple[Tensor, ...] = (),
        time_dtype: torch.dtype | None = None,
        place: Callable[[int], Place] | None = None,
        surroundings: Surroundings | None = None,
    ):
        self.func = func
        self.params, self.frozen = params, frozen
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.time_dtype = time_dtype or like.dtype.to_real()
        self.surroundings = surroundings or Surroundings((), like.device)
        self.f_calls = 0
        self.vjps = 0
        self._place = place
        self._watches = False
        self._look = False
        self._sizes: set[int] = set()
        self._reached: set[int] = set()
        """Which of params the graphs that were looked at lead to."""
        self._reached_before: set[int] = set()
        self.retains = False
        """Whether the graph of one call is needed by the next."""
        self.compiled: CompiledSteps | None = None
        self.aliases: Aliases | None = None
        """What stands in the parameters' places, while it does."""
        self._first: tuple[Tensor, Tensor, Tensor] | None = None

    def watch(self) -> None:
        self._watches = self._look = True

    def again(self) -> "Field":
        """The same field with counts of its own, for a pass on the way back."""
        other = copy(self)
        other.f_calls = other.vjps = 0
        other._sizes = set()  # what func uses then may be something else
        other._reached_before, other._reached = self._reached, set()
        other.compiled = self.compiled.again() if self.compiled else None
        return other

    @property
    def code(self) -> CompiledSteps | None:
        """Machine code for the calls to come: not while the first one is to be looked at, and never on the graph."""
        return None if self._look or torch.is_grad_enabled() else self.compiled

    @contextmanager
    def standing_in(self, aliases: Aliases) -> Iterator[None]:
        """Calls inside see the aliases in the parameters' places."""
        self.aliases = aliases
        try:
            with in_place(aliases.slots):
                yield
        finally:
            self.aliases = None

    def refuse_forgotten(self, bars: Sequence[Tensor | None]) -> None:
        """Raises LostGradient where the solve's first graph led to a parameter and none did on the way back.

        bars: what the way back gave to each of params, every f call of the solve having been transposed.
        """
        for i, (p, bar) in enumerate(zip(self.params, bars, strict=True)):
            if bar is None and i in self._reached_before - self._reached and p.requires_grad:
                raise LostGradient(
                    f"func used a parameter of shape {tuple(p.shape)} when it was first called, and later only what it "
                    "had computed from it and kept: the gradient would be lost. Let func compute it anew in each "
                    "call, or compute it outside func and pass it as odeint(..., params=(tensor,))"
                )

    def restart(self) -> None:
        self._look = self._watches
        self._sizes.clear()  # f may be another function from here on, of a graph of the same size

    def place(self, index: int) -> Place:
        if self._place is not None:
            return self._place(index)
        return Place(None, unravelled(index, self.shape))

    def settle(self) -> None:
        """After the last call of a solve that will be gone through again: see Surroundings."""
        self.surroundings.settle(self._agrees)
        self._first = None

    def _agrees(self) -> bool:
        """Whether f still gives at its first point what it gave there."""
        assert self._first is not None
        t, y, k = self._first
        with torch.no_grad():
            again = self(t, y)
        # The same operations again: a device may sum them in another order, no more.
        return torch.allclose(again, k, rtol=100 * torch.finfo(k.dtype).eps, atol=torch.finfo(k.dtype).eps)

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        self.f_calls += 1
        if torch.is_grad_enabled():
            return self._on_graph(self.time(t), y)
        if self._look:
            self._look = False
            return self._watched(t, y)
        if y.requires_grad:  # the caller's y0 on the way back, whose parts would seem to have a graph
            y = y.detach()
        k = self._evaluate(self.time(t), y)
        if torch.is_grad_enabled():  # func enabled it for good
            torch.set_grad_enabled(False)
        return k.detach() if k.requires_grad else k

    def linearize(self, t: Time, y: Tensor, *, with_time: bool = False, with_value: bool = False) -> Linearization:
        """f at (t, y) on a graph of its own, whose leaves are y, t (with_time) and the parameters."""
        self.f_calls += 1
        y, time = y.detach().requires_grad_(), self.time(t)
        if with_time:
            time = time.detach().requires_grad_()
        was = torch.is_grad_enabled()
        look, self._look = self._look, False
        torch._C._set_grad_enabled(True)  # enable_grad() and its like take as long as an operation on a small state
        try:
            k = self._on_graph(time, y.clone() if look else y)  # see _watched
        finally:
            torch._C._set_grad_enabled(was)
        if look:
            self._note_first(time.detach(), y.detach(), k.detach())
        # An edge instead of k, which is as large as a state and which no node keeps unless its own derivative needs it.
        reached = edge_to(k) if k.requires_grad else None
        value = k.detach() if with_value else None
        return Linearization(reached, (y, time) if with_time else (y,), value, by_params=self.aliases is None)

    def transpose(self, one: Linearization, w: Tensor, pull: Pull) -> Sequence[Tensor | None]:
        """w^T df/dy, and w^T df/dt where times are differentiated; pull takes w^T df/dtheta. Used once: see Pull."""
        self.vjps += 1
        if one.reached is None:
            return (None,) * len(one.inputs)
        return pull((one.reached,), one.inputs, (w,), by_params=one.by_params)

    def pull(
        self,
        reached: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        *,
        create_graph: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """torch.autograd.grad for a part of the gradient, None where nothing depends on an input.

        Hooks that the user registered on a parameter wait for the whole: they would clip, scale or count each part,
        and retain_grad() would add each part to .grad.
        """
        pairs = on_a_graph(reached, cotangents)
        if not pairs:
            return (None,) * len(inputs)
        wanted = [x for x in inputs if x.requires_grad]  # one may have been frozen since the forward pass
        with _silenced([p for p in self.params if p._backward_hooks or p.retains_grad]):
            bars = run_backward(
                tuple(x for x, _ in pairs),
                tuple(seed for _, seed in pairs),
                create_graph or self.retains,
                create_graph,
                tuple(wanted),
                allow_unreachable=True,
                accumulate_grad=False,
            )
        if len(wanted) == len(inputs):
            return bars
        found = iter(bars)
        return tuple(next(found) if x.requires_grad else None for x in inputs)

    def time(self, t: Time) -> Tensor:
        """t as func gets it: a 0-dim tensor of a real dtype like the state's, made on its device."""
        if type(t) is float:
            return torch.scalar_tensor(t, dtype=self.time_dtype, device=self.device)  # no copy from the host
        return torch.as_tensor(t).to(dtype=self.time_dtype, device=self.device)

    def adjacent_time(self, t: Time, direction: float) -> Time:
        """The next number after t, up or down, in the dtype in which func gets it."""
        exact = torch.as_tensor(t, dtype=torch.float64).detach().cpu()
        near = _next_number(exact.to(self.time_dtype), direction).double()
        return t + (near - exact) if isinstance(t, Tensor) else near.item()

    def _evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        version = None if y.is_inference() else y._version
        draws = self.surroundings.draws
        k = self.func(t, y) if draws.none else draws(self.func, t, y)
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: let it return a new tensor (write y + 1, not y.add_(1))")
        if not isinstance(k, Tensor) or k.shape != self.shape or k.dtype != self.dtype or k.device != self.device:
            self._refuse(k)
        return k

    def _on_graph(self, t: Tensor, y: Tensor) -> Tensor:
        before = nodes_made()
        k = self._evaluate(t, y)
        if self._watches and k.grad_fn is not None:
            size = nodes_made() - before
            if size not in self._sizes:
                self._sizes.add(size)
                self._search(k, y, t, before)
        return k

    def _refuse(self, k: Any) -> NoReturn:
        if not isinstance(k, Tensor):
            raise TypeError(f"func must return a tensor like y, got {type(k).__name__}")
        raise ValueError(
            f"func must return a tensor like y (shape {tuple(self.shape)}, {self.dtype}, {self.device}), "
            f"got shape {tuple(k.shape)}, {k.dtype}, {k.device}: it is not broadcast or cast for you"
        )

    def _watched(self, t: Time, y: Tensor) -> Tensor:
        with torch.enable_grad():
            # A clone, so that a change in place gets our message and not that of a leaf.
            y, time = y.detach().requires_grad_().clone(), self.time(t).detach()
            k = self._on_graph(time, y).detach()
        self._note_first(time, y.detach(), k)
        return k

    def _note_first(self, t: Tensor, y: Tensor, k: Tensor) -> None:
        if self.compiled is not None:
            self.surroundings.require_fixed()
        if self._first is None and self.surroundings.watches:
            self._first = (t, y, k)

    def _search(self, k: Tensor, y: Tensor, t: Tensor, made_before: int) -> None:
        """Raises LostGradient for a leaf of k's graph that is not known.

        Where func uses what was computed before it was called, that graph must outlive the call's.
        """

        def note(node: Node) -> None:
            self.retains = self.retains or node._sequence_nr() < made_before
            self.surroundings.sees(node)

        for p in self.params:
            if p.grad_fn is not None:
                self.surroundings.sees(p.grad_fn)
        leaves = self.params if self.aliases is None else self.aliases.leaves
        known, met = (*self.params, *leaves, *self.frozen, y, t), set[int]()
        any_lost = bool(unknown_leaves(k, known, note, met))
        self._reached |= {i for i, pair in enumerate(zip(self.params, leaves, strict=True)) if met & set(map(id, pair))}
        if self.aliases is not None and any(id(p) in met for p in self.params):
            self.aliases.bypassed = True
        if not any_lost:
            return
        gc.collect()  # a leaf that only a cycle of func's garbage still holds is func's own
        for lost in unknown_leaves(k, known):
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it (or what is computed from it outside func) as odeint(..., params=(tensor,)), or detach() it."
            )


def on_a_graph(
    reached: Sequence[Tensor | GradientEdge], cotangents: Sequence[Tensor]
) -> list[tuple[Tensor | GradientEdge, Tensor]]:
    """What can be pulled back, with its cotangent."""
    pairs = zip(reached, cotangents, strict=True)
    return [(x, seed) for x, seed in pairs if isinstance(x, GradientEdge) or x.requires_grad]


def refuse_bypass(aliases: Aliases, reached: Sequence[Tensor | GradientEdge], inputs: Sequence[Tensor]) -> None:
    """Raises LostGradient where a graph leads to a parameter itself, and earlier ones led to its alias only."""
    for edge in reached:
        lost = {id(x) for x in unknown_leaves(edge, (*aliases.leaves, *inputs))} & {id(p) for p in aliases.params}
        for p in aliases.params:
            if id(p) in lost:
                raise LostGradient(
                    f"func reaches a parameter of shape {tuple(p.shape)} as an attribute of its module in some calls "
                    "and by another way in others: its gradient would be lost. Let it reach it one way, or take "
                    'gradient="backprop"'
                )


@contextmanager
def _silenced(hooked: Sequence[Tensor]) -> Iterator[None]:
    """Without the tensors' own hooks and retained gradients. Emptying the dict in place is what autograd sees."""
    retained = [(p, p.grad) for p in hooked if p.retains_grad]
    held = [(hooks, dict(hooks)) for p in hooked if (hooks := p._backward_hooks)]
    for hooks, _ in held:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, content in held:
            hooks.update(content)
        for p, grad in retained:
            p.grad = grad


def _next_number(x: Tensor, direction: float) -> Tensor:
    towards = torch.full_like(x, math.copysign(math.inf, direction))
    if x.dtype != torch.float16:
        return torch.nextafter(x, towards)
    info = torch.finfo(x.dtype)  # torch has no nextafter for it
    return (x.double() + math.copysign(max(abs(x.item()) * info.eps, info.tiny), direction)).to(x.dtype)
