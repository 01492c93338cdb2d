"""The vector field f(t, y): the user's function with its parameters, checked, counted, and transposed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint._torch_internals import nodes_made, run_backward, set_grad_enabled
from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.finite import unravelled
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.linearization import Linearization, Pull, on_a_graph, silenced_hooks
from symplectic_adjoint.field.lost_gradients import LostGradientSearch
from symplectic_adjoint.field.module_tensors import in_place
from symplectic_adjoint.field.parameter_aliases import ParameterAliases
from symplectic_adjoint.field.times import Time, next_number

Func = Callable[[Tensor, Tensor], Tensor]


class Field:
    """f(t, y) with its parameters. Counts its calls here, never on the user's module.

    like: a tensor like the state. frozen: tensors that func is known to use and that had no gradient when the solve
    began. time_dtype: that of t as func gets it. place: names the place of an entry of the flattened state.
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
        forward_state: ForwardState | None = None,
    ):
        self.func, self.params = func, params
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.time_dtype = time_dtype or like.dtype.to_real()
        self.forward_state = forward_state or ForwardState((), like.device)
        self.search = LostGradientSearch(params, frozen, self.forward_state)
        self.f_calls = 0
        self.vjps = 0
        self.compiled: CompiledSteps | None = None
        self.aliases: ParameterAliases | None = None
        """The tensors that stand in for the parameters, during a sweep."""
        self._place = place
        self._first: tuple[Tensor, Tensor, Tensor] | None = None
        """t, y and f of the first call, where func might change what it depends on."""

    def again(self) -> "Field":
        """Return the same field with counts of its own, for a backward pass."""
        other = copy(self)
        other.f_calls = other.vjps = 0
        other.search = self.search.again()
        other.compiled = self.compiled.again() if self.compiled else None
        return other

    @property
    def code(self) -> CompiledSteps | None:
        """Compiled code for the calls to come: not while one is to be searched, and never on the graph."""
        return None if self.search.due or torch.is_grad_enabled() else self.compiled

    @contextmanager
    def standing_in(self, aliases: ParameterAliases) -> Iterator[None]:
        """Let the calls inside see the aliases in place of the parameters."""
        self.aliases = aliases
        try:
            with in_place(aliases.slots):
                yield
        finally:
            self.aliases = None

    def restart(self) -> None:
        """Note that f may be another function from here on: it jumps."""
        self.search.restart()

    def place(self, index: int) -> Place:
        """Return the place of an entry of the flattened state."""
        if self._place is not None:
            return self._place(index)
        return Place(None, unravelled(index, self.shape))

    def settle(self) -> None:
        """Check, after the last call of a solve that will be recomputed, that it can be: see ForwardState.settle."""
        self.forward_state.settle(self._agrees)
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
        if self.search.due:
            self.search.due = False
            return self._searched(t, y)
        if y.requires_grad:  # the caller's y0 in the backward pass, whose parts would seem to have a graph
            y = y.detach()
        k = self._evaluate(self.time(t), y)
        if torch.is_grad_enabled():  # func enabled it for good
            torch.set_grad_enabled(False)
        return k.detach() if k.requires_grad else k

    def linearize(self, t: Time, y: Tensor, *, with_time: bool = False, with_value: bool = False) -> Linearization:
        """Return f at (t, y) on a graph of its own, whose leaves are y, t (with_time) and the parameters."""
        self.f_calls += 1
        y, time = y.detach().requires_grad_(), self.time(t)
        if with_time:
            time = time.detach().requires_grad_()
        was = torch.is_grad_enabled()
        searched, self.search.due = self.search.due, False
        set_grad_enabled(True)  # enable_grad() and its like take as long as an operation on a small state
        try:
            k = self._on_graph(time, y.clone() if searched else y)  # see _searched
        finally:
            set_grad_enabled(was)
        if searched:
            self._note_first(time.detach(), y.detach(), k.detach())
        # An edge instead of k, which is as large as a state and which no node keeps unless its own derivative needs it.
        reached = edge_to(k) if k.requires_grad else None
        value = k.detach() if with_value else None
        return Linearization(reached, (y, time) if with_time else (y,), value, by_params=self.aliases is None)

    def transpose(self, one: Linearization, w: Tensor, pull: Pull) -> Sequence[Tensor | None]:
        """Return w^T df/dy, and w^T df/dt where times are differentiated; pull takes w^T df/dtheta. For one use."""
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
        """Return what torch.autograd.grad does for a part of the gradient, None where nothing depends on an input."""
        pairs = on_a_graph(reached, cotangents)
        if not pairs:
            return (None,) * len(inputs)
        wanted = [x for x in inputs if x.requires_grad]  # one may have been frozen since the forward pass
        with silenced_hooks(self.params):
            bars = run_backward(
                tuple(x for x, _ in pairs),
                tuple(seed for _, seed in pairs),
                create_graph or self.search.retains,
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
        """Return t as func gets it: a 0-dim tensor of a real dtype like the state's, made on its device."""
        if type(t) is float:
            return torch.scalar_tensor(t, dtype=self.time_dtype, device=self.device)  # no copy from the host
        return torch.as_tensor(t).to(dtype=self.time_dtype, device=self.device)

    def adjacent_time(self, t: Time, direction: float) -> Time:
        """Return the next number after t, up or down, in the dtype in which func gets it."""
        exact = torch.as_tensor(t, dtype=torch.float64).detach().cpu()
        near = next_number(exact.to(self.time_dtype), direction).double()
        return t + (near - exact) if isinstance(t, Tensor) else near.item()

    def _evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        version = None if y.is_inference() else y._version
        rng = self.forward_state.rng
        k = self.func(t, y) if rng.none else rng(self.func, t, y)
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: let it return a new tensor (write y + 1, not y.add_(1))")
        if not isinstance(k, Tensor) or k.shape != self.shape or k.dtype != self.dtype or k.device != self.device:
            self._refuse(k)
        return k

    def _on_graph(self, t: Tensor, y: Tensor) -> Tensor:
        made_before = nodes_made()
        k = self._evaluate(t, y)
        if self.search.active and k.grad_fn is not None:
            self.search.examine(k, y, t, made_before, self.aliases)
        return k

    def _refuse(self, k: Any) -> NoReturn:
        if not isinstance(k, Tensor):
            raise TypeError(f"func must return a tensor like y, got {type(k).__name__}")
        raise ValueError(
            f"func must return a tensor like y (shape {tuple(self.shape)}, {self.dtype}, {self.device}), "
            f"got shape {tuple(k.shape)}, {k.dtype}, {k.device}: it is not broadcast or cast for you"
        )

    def _searched(self, t: Time, y: Tensor) -> Tensor:
        """f on a graph that is made only to be searched."""
        with torch.enable_grad():
            # A clone, so that a change in place gets our message and not that of a leaf.
            y, time = y.detach().requires_grad_().clone(), self.time(t).detach()
            k = self._on_graph(time, y).detach()
        self._note_first(time, y.detach(), k)
        return k

    def _note_first(self, t: Tensor, y: Tensor, k: Tensor) -> None:
        if self.compiled is not None:
            self.forward_state.require_fixed()
        if self._first is None and self.forward_state.watches:
            self._first = (t, y, k)
