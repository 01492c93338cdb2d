"""The vector field f(t, y): the user's function, its parameters, checked, counted, and transposed."""

from collections.abc import Callable, Sequence
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


def collect_parameters(func: Func, params: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    """Tensors that may receive a gradient: `params`, then those of func's module, each once.

    func may be a module, a bound method of one, or any function (which has none of its own).
    """
    if isinstance(params, Tensor):
        raise TypeError("params must be a sequence of tensors, got one tensor: write params=(tensor,)")
    owner = func if isinstance(func, nn.Module) else getattr(func, "__self__", None)
    own = tuple(owner.parameters()) if isinstance(owner, nn.Module) else ()
    found: dict[int, Tensor] = {}
    for index, p in enumerate((*(params or ()), *own)):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{index}] must be a tensor, got {type(p).__name__}")
        if p.requires_grad:
            found.setdefault(id(p), p)
    return tuple(found.values())


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

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        self.f_calls += 1
        if self._watch:
            self._watch = False
            return self._watched(t, y)
        return self._checked(self.func(self.time(t), y))

    def vjp(self, t: Time, y: Tensor, w: Tensor, *, with_time: bool = False) -> Vjp:
        """w^T (df/dy, df/dt, df/dtheta) at (t, y), with one f on the graph. w has the shape of y."""
        self.f_calls += 1
        self.vjps += 1
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            time = self.time(t)
            if with_time:
                time = time.detach().requires_grad_()
            k = self._checked(self.func(time, y))
            times = (time,) if with_time else ()
            if not k.requires_grad:  # a field that depends on nothing we differentiate
                return Vjp(k, None, None, (None,) * len(self.params))
            bars = torch.autograd.grad(k, (y, *times, *self.params), w, allow_unused=True)
        return Vjp(k.detach(), bars[0], bars[1] if with_time else None, bars[1 + len(times) :])

    def time(self, t: Time) -> Tensor:
        """t as func gets it: a 0-dim tensor of the state's dtype, made on its device (no copy from the host)."""
        if isinstance(t, Tensor):
            return t.to(dtype=self.dtype, device=self.device)
        return torch.full((), t, dtype=self.dtype, device=self.device)

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
        version = None if y.is_inference() else y._version
        with torch.enable_grad():
            k = self._checked(self.func(self.time(t), y.detach()))
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: let it return a new tensor (write y + 1, not y.add_(1))")
        lost = _first_unknown_leaf(k, self.params)
        if lost is not None:
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it as odeint(..., params=(tensor,)), or detach() it."
            )
        return k.detach()


def _first_unknown_leaf(k: Tensor, params: tuple[Tensor, ...]) -> Tensor | None:
    """The first leaf of k's graph that is not in params; the walk stops at a parameter that is no leaf."""
    known = {id(p) for p in params}
    seen = {p.grad_fn for p in params if p.grad_fn is not None}
    queue: list[Node | None] = [k.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            return leaf
        queue.extend(next_node for next_node, _ in node.next_functions)
    return None
