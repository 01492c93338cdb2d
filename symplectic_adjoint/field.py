"""The vector field f(t, y): the user's function, its parameters, checked, counted, and transposed."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from symplectic_adjoint.errors import LostGradient, Place
from symplectic_adjoint.finite import unravelled
from symplectic_adjoint.graph import nodes_made, unknown_leaves
from symplectic_adjoint.surroundings import Surroundings

Time = float | Tensor
"""A time or a step size: a Python float (float64), or a 0-dim tensor where times are differentiated."""


def number(t: Time) -> float:
    """A time without its graph."""
    return t.detach().item() if isinstance(t, Tensor) else t


Func = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Vjp:
    """One transposed f: w^T df at one point. An entry that f does not depend on is None."""

    k: Tensor
    """f(t, y) itself, detached."""
    y_bar: Tensor | None
    t_bar: Tensor | None
    param_bars: tuple[Tensor | None, ...]


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
        wanted = [x for x in inputs if x.requires_grad]  # one may have been frozen since the forward pass
        with _silenced([p for p in self.params if p._backward_hooks or p.retains_grad]):
            bars = torch.autograd.grad(
                [x for x, _ in pairs],
                wanted,
                [seed for _, seed in pairs],
                create_graph=create_graph,
                retain_graph=create_graph or self._retain,
                allow_unused=True,
            )
        if len(wanted) == len(inputs):
            return bars
        found = iter(bars)
        return tuple(next(found) if x.requires_grad else None for x in inputs)

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
        before = nodes_made()
        k = self._checked(self.surroundings.draws(self.func, t, y))
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: let it return a new tensor (write y + 1, not y.add_(1))")
        if self._watches and k.grad_fn is not None and torch.is_grad_enabled():
            size = nodes_made() - before
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
            self.surroundings.sees(node)

        for p in self.params:
            if p.grad_fn is not None:
                self.surroundings.sees(p.grad_fn)
        if not unknown_leaves(k, known, note):
            return
        gc.collect()  # a leaf that only a cycle of func's garbage still holds is func's own
        for lost in unknown_leaves(k, known):
            raise LostGradient(
                f"func uses a tensor of shape {tuple(lost.shape)}, {lost.dtype}, that requires a gradient and is "
                "neither a parameter of func's module nor in params: its gradient would be lost. "
                "Pass it (or what is computed from it outside func) as odeint(..., params=(tensor,)), or detach() it."
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
