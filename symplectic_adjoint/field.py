"""The vector field f(t, y): the user's function, its parameters, checked, counted, and transposed."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from symplectic_adjoint.errors import LostGradient

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


def collect_parameters(func: Func, params: Sequence[Tensor] | None) -> Parameters:
    """`params`, then the parameters of func's module, each once.

    func may be a module, a bound method of one, or any function (which has none of its own). Raises
    ValueError for a parameter that is computed from another one.
    """
    if isinstance(params, Tensor):
        raise TypeError("params must be a sequence of tensors, got one tensor: write params=(tensor,)")
    owner = func if isinstance(func, nn.Module) else getattr(func, "__self__", None)
    own = tuple(owner.parameters()) if isinstance(owner, nn.Module) else ()
    found: dict[int, Tensor] = {}
    for index, p in enumerate((*(params or ()), *own)):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{index}] must be a tensor, got {type(p).__name__}")
        found.setdefault(id(p), p)
    trainable = tuple(p for p in found.values() if p.requires_grad)
    _refuse_ancestors(trainable)
    return Parameters(trainable, tuple(p for p in found.values() if not p.requires_grad))


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

    `watch` makes the first call look for tensors that require a gradient and that are not in
    `params`: their gradient would be lost without a word, so it raises LostGradient.
    """

    def __init__(self, func: Func, params: tuple[Tensor, ...], like: Tensor, *, watch: bool = False):
        self.func = func
        self.params = params
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.f_calls = 0
        self.vjps = 0
        self._watch = watch
        self._hooked = [p for p in params if p._backward_hooks or p.retains_grad]

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        self.f_calls += 1
        if self._watch:
            self._watch = False
            return self._watched(t, y)
        on_graph = torch.is_grad_enabled()
        k = self._evaluate(self.time(t), y)
        if on_graph:
            return k
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
                [x for x, _ in pairs], inputs, [seed for _, seed in pairs], create_graph=create_graph, allow_unused=True
            )

    def time(self, t: Time) -> Tensor:
        """t as func gets it: a 0-dim tensor of the state's dtype, made on its device (no copy from the host)."""
        if isinstance(t, Tensor):
            return t.to(dtype=self.dtype, device=self.device)
        return torch.full((), t, dtype=self.dtype, device=self.device)

    def _evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        version = None if y.is_inference() else y._version
        k = self._checked(self.func(t, y))
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: let it return a new tensor (write y + 1, not y.add_(1))")
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
            k = self._evaluate(time, y)
        lost = _first_unknown_leaf(k, (*self.params, y, time))
        if lost is not None:
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it as odeint(..., params=(tensor,)), or detach() it."
            )
        return k.detach()


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


def _first_unknown_leaf(k: Tensor, known: tuple[Tensor, ...]) -> Tensor | None:
    """The first leaf of k's graph that is not known; the walk stops at a known tensor that is no leaf.

    It stops at that one output of its node: of two halves of a chunked tensor one may be known and one not. A leaf
    that func made for itself, as for a trace or an energy's slope, is held by the graph alone once func has
    returned: nobody could read its gradient, so none is lost.
    """
    lone = object()
    leaves = {id(x) for x in known}
    ends: set[Edge] = {(x.grad_fn, x.output_nr) for x in known if x.grad_fn is not None}
    for node, _ in _walk([(k.grad_fn, k.output_nr)], ends):
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in leaves and sys.getrefcount(leaf) > sys.getrefcount(lone):
            return leaf
    return None


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
