"""The vector field f(t, y): the user's function, its parameters, checked, counted, and transposed."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from symplectic_adjoint.errors import LostGradient, Place, UnsupportedCombination
from symplectic_adjoint.finite import unravelled
from symplectic_adjoint.surroundings import Surroundings

Time = float | Tensor
"""A time or a step size: a Python float (float64), or a 0-dim tensor where times are differentiated."""

Func = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Vjp:
    """One transposed f: w^T df at one point. An entry that f does not depend on is None."""

    k: Tensor
    """f(t, y) itself, detached."""
    y_bar: Tensor | None
    t_bar: Tensor | None
    param_bars: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Parameters:
    """The tensors that func is known to use: those that get a gradient, and those that are frozen."""

    trainable: tuple[Tensor, ...]
    frozen: tuple[Tensor, ...]
    module: nn.Module | None
    """The module that func is, or whose method it is."""


def collect_parameters(func: Func, params: Sequence[Tensor] | None) -> Parameters:
    """`params`, then the parameters of func's module, each once.

    func may be a module, a bound method of one, a functools.partial of these, or any function (which has none). Raises
    ValueError for a parameter that is computed from another one, UnsupportedCombination for sharded ones.
    """
    if isinstance(params, Tensor):
        raise TypeError("params must be a sequence of tensors, got one tensor: write params=(tensor,)")
    inner: Any = func
    while isinstance(inner, partial):
        inner = inner.func
    owner = inner if isinstance(inner, nn.Module) else getattr(inner, "__self__", None)
    module = owner if isinstance(owner, nn.Module) else None
    own = _own_parameters(module) if module is not None else ()
    _refuse_sharded(own)
    found: dict[int, Tensor] = {}
    for index, p in enumerate((*(params or ()), *own)):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{index}] must be a tensor, got {type(p).__name__}")
        found.setdefault(id(p), p)
    trainable = tuple(p for p in found.values() if p.requires_grad)
    _refuse_ancestors(trainable)
    return Parameters(trainable, tuple(p for p in found.values() if not p.requires_grad), module)


def _own_parameters(module: nn.Module) -> tuple[Tensor, ...]:
    """module.parameters(); those of a DataParallel replica are plain attributes, copies on its device."""
    if not getattr(module, "_is_replica", False):
        return tuple(module.parameters())
    attributes = (x for m in module.modules() for x in vars(m).values())
    return tuple(x for x in attributes if isinstance(x, Tensor) and x.requires_grad)


def _refuse_sharded(params: tuple[Tensor, ...]) -> None:
    """FSDP2 swaps a module's parameters while it runs: func computes with tensors that nobody could name before."""
    sharding = sys.modules.get("torch.distributed.tensor")
    if sharding is not None and any(isinstance(p, sharding.DTensor) for p in params):
        raise UnsupportedCombination(
            "func's parameters are sharded (DTensor, as FSDP2 leaves them), and each f call would gather them anew: "
            "wrap the model in DistributedDataParallel, or shard the layers around the solve only"
        )


def _refuse_ancestors(params: tuple[Tensor, ...]) -> None:
    """A parameter computed from another one would pass its gradient on to it, which gets it already."""
    leaves = {id(q): q for q in params if q.grad_fn is None}
    others = {(q.grad_fn, q.output_nr): q for q in params if q.grad_fn is not None}
    for p in others.values():
        for node, output_nr in _walk([(p.grad_fn, p.output_nr)], set()):
            q = leaves.get(id(getattr(node, "variable", None)), others.get((node, output_nr)))
            if q is not None and q is not p:
                raise ValueError(
                    f"a tensor of shape {tuple(p.shape)} in params is computed from another parameter, of shape "
                    f"{tuple(q.shape)}, which would get its gradient twice: pass one of the two, or compute the first "
                    "one inside func"
                )


class Field:
    """f(t, y) with its parameters. Counts its calls here, never on the user's module.

    watch(): the next call looks for tensors that require a gradient and that are not in `params`: their
    gradient would be lost without a word, so it raises LostGradient. From then on every graph of another size
    is looked at too.
    """

    def __init__(
        self,
        func: Func,
        params: tuple[Tensor, ...],
        like: Tensor,
        *,
        time_dtype: torch.dtype | None = None,
        place: Callable[[int], Place] | None = None,
        surroundings: Surroundings | None = None,
    ):
        self.func = func
        self.params = params
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.time_dtype = time_dtype or like.dtype.to_real()
        self.surroundings = surroundings or Surroundings(None, like.device)
        self.f_calls = 0
        self.vjps = 0
        self._place = place
        self._watches = False
        self._look = False
        self._sizes: set[int] = set()
        self._retain = False
        self._first: tuple[Tensor, Tensor, Tensor] | None = None
        self._hooked = [p for p in params if p._backward_hooks or p.retains_grad]

    def watch(self) -> None:
        self._watches = self._look = True

    def again(self) -> "Field":
        """The same field with counts of its own, for a pass on the way back."""
        other = copy(self)
        other.f_calls = other.vjps = 0
        return other

    def restart(self) -> None:
        self._look = self._watches

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
            return self._evaluate(self.time(t), y)
        if self._look:
            self._look = False
            return self._watched(t, y)
        if y.requires_grad:  # the caller's y0 on the way back, whose parts would seem to have a graph
            y = y.detach()
        k = self._evaluate(self.time(t), y)
        torch.set_grad_enabled(False)  # func may have enabled it, for itself or for good
        return k.detach()

    def vjp(self, t: Time, y: Tensor, w: Tensor, *, with_time: bool = False) -> Vjp:
        """w^T (df/dy, df/dt, df/dtheta) at (t, y), with one f on the graph. w has the shape of y."""
        self.f_calls += 1
        self.vjps += 1
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            time = self.time(t)
            if with_time:
                time = time.detach().requires_grad_()
            k = self._evaluate(time, y)
            times = (time,) if with_time else ()
            bars = self.pull(k, (y, *times, *self.params), w)
        return Vjp(k.detach(), bars[0], bars[1] if with_time else None, bars[1 + len(times) :])

    def pull(
        self,
        reached: Tensor | Sequence[Tensor],
        inputs: Sequence[Tensor],
        cotangents: Tensor | Sequence[Tensor],
        *,
        create_graph: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """torch.autograd.grad for a part of the gradient, None where nothing depends on an input.

        Hooks that the user registered on a parameter wait for the whole: they would clip, scale or count each part,
        and retain_grad() would add each part to .grad.
        """
        outputs = [reached] if isinstance(reached, Tensor) else list(reached)
        seeds = [cotangents] if isinstance(cotangents, Tensor) else list(cotangents)
        pairs = [(x, seed) for x, seed in zip(outputs, seeds, strict=True) if x.requires_grad]
        if not pairs:
            return (None,) * len(inputs)
        with _silenced(self._hooked):
            return torch.autograd.grad(
                [x for x, _ in pairs],
                inputs,
                [seed for _, seed in pairs],
                create_graph=create_graph,
                retain_graph=create_graph or self._retain,
                allow_unused=True,
            )

    def time(self, t: Time) -> Tensor:
        """t as func gets it: a 0-dim tensor of a real dtype like the state's, made on its device."""
        if isinstance(t, Tensor):
            return t.to(dtype=self.time_dtype, device=self.device)
        return torch.full((), t, dtype=self.time_dtype, device=self.device)  # no copy from the host

    def beside(self, t: Time, direction: float) -> Time:
        """The next number after t, up or down, in the dtype in which func gets it."""
        exact = torch.as_tensor(t, dtype=torch.float64).detach().cpu()
        near = _next_number(exact.to(self.time_dtype), direction).double()
        return t + (near - exact) if isinstance(t, Tensor) else near.item()

    def _evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        version = None if y.is_inference() else y._version
        before = _nodes_made()
        k = self._checked(self.surroundings.draws(self.func, t, y))
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: let it return a new tensor (write y + 1, not y.add_(1))")
        if self._watches and k.grad_fn is not None and torch.is_grad_enabled():
            size = _nodes_made() - before
            if size not in self._sizes:
                self._sizes.add(size)
                self._search(k, (*self.params, y, t), before)
        return k

    def _checked(self, k: Tensor) -> Tensor:
        if not isinstance(k, Tensor):
            raise TypeError(f"func must return a tensor like y, got {type(k).__name__}")
        if k.shape != self.shape or k.dtype != self.dtype or k.device != self.device:
            raise ValueError(
                f"func must return a tensor like y (shape {tuple(self.shape)}, {self.dtype}, {self.device}), "
                f"got shape {tuple(k.shape)}, {k.dtype}, {k.device}: it is not broadcast or cast for you"
            )
        return k

    def _watched(self, t: Time, y: Tensor) -> Tensor:
        with torch.enable_grad():
            # A clone, so that a change in place gets our message and not that of a leaf.
            y, time = y.detach().requires_grad_().clone(), self.time(t).detach()
            self._sizes.clear()  # f may be another function from here on, of a graph of the same size
            k = self._evaluate(time, y).detach()
        if self._first is None and self.surroundings.watches:
            self._first = (time, y.detach(), k)
        return k

    def _search(self, k: Tensor, known: tuple[Tensor, ...], made_before: int) -> None:
        """Raises LostGradient for a leaf of k's graph that is not known.

        Where func uses what was computed before it was called, that graph must outlive the call's.
        """

        def note(node: Node) -> None:
            self._retain = self._retain or node._sequence_nr() < made_before

        for lost in unknown_leaves(k, known, note):
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it (or what is computed from it outside func) as odeint(..., params=(tensor,)), or detach() it."
            )


_nodes_made: Callable[[], int] = torch._C._autograd._get_sequence_nr  # pyright: ignore
"""How many nodes autograd has made in this thread: the size of a graph for the price of two reads."""


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


def unknown_leaves(
    k: Tensor, known: tuple[Tensor, ...], note: Callable[[Node], None] = lambda node: None
) -> list[Tensor]:
    """The leaves of k's graph that are not known; the walk stops at a known tensor that is no leaf.

    It stops at that one output of its node: of two halves of a chunked tensor one may be known and one not. A leaf
    that func made for itself, as for a trace or an energy's slope, is held by the graph alone once func has
    returned: nobody could read its gradient, so none is lost. note is told of every other node.
    """
    lone = _references_to_a_lone_leaf()
    leaves = {id(x) for x in known}
    ends: set[Edge] = {(x.grad_fn, x.output_nr) for x in known if x.grad_fn is not None}
    found = []
    for node, _ in _walk([(k.grad_fn, k.output_nr)], ends):
        leaf = getattr(node, "variable", None)
        if leaf is None:
            note(node)
        elif id(leaf) not in leaves and sys.getrefcount(leaf) > lone:
            found.append(leaf)
    return found


def _references_to_a_lone_leaf() -> int:
    """How many references Python counts to a leaf that only its graph holds: torch's versions differ in it."""
    node = get_gradient_edge(torch.ones((), requires_grad=True)).node
    leaf = getattr(node, "variable", None)
    return sys.getrefcount(leaf)


def _next_number(x: Tensor, direction: float) -> Tensor:
    towards = torch.full_like(x, math.copysign(math.inf, direction))
    if x.dtype != torch.float16:
        return torch.nextafter(x, towards)
    info = torch.finfo(x.dtype)  # torch has no nextafter for it
    return (x.double() + math.copysign(max(abs(x.item()) * info.eps, info.tiny), direction)).to(x.dtype)


Edge = tuple[Node | None, int]


def _walk(edges: list[Edge], ends: set[Edge]) -> Iterator[tuple[Node, int]]:
    """Every edge of the graph behind `edges` but those of `ends` and what only they lead to."""
    seen: set[Edge] = set()
    while edges:
        edge = edges.pop()
        node = edge[0]
        if node is None or edge in seen or edge in ends:
            continue
        seen.add(edge)
        yield node, edge[1]
        edges.extend(node.next_functions)
