"""One call of f on the graph, and how cotangents are pulled back through it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock, get_ident
from typing import Any, Protocol

from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint.field.module_lock import runs_in_another_thread


class Pull(Protocol):
    """A function that pulls cotangents back through a graph and keeps the parameters' part."""

    def __call__(
        self,
        outputs: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        /,
        *,
        by_params: bool,
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of inputs.

        by_params: whether the graph leads to the parameters themselves, although aliases may replace them now.
        """
        ...


@dataclass(slots=True)
class Linearization:
    """One call of f on the graph, ready to be transposed."""

    edge: GradientEdge | None
    """The edge at which the graph of f(t, y) begins, None if f has no graph."""
    inputs: tuple[Tensor, ...]
    """y, and t if times are differentiated."""
    k: Tensor | None
    """f(t, y) itself, detached, if it was requested."""
    by_params: bool = True
    """Whether the graph leads to the parameters, rather than to aliases that replaced them when it was made."""


def pairs_with_graph(
    outputs: Sequence[Tensor | GradientEdge], cotangents: Sequence[Tensor]
) -> list[tuple[Tensor | GradientEdge, Tensor]]:
    """Return the outputs that have a graph, each with its cotangent."""
    pairs = zip(outputs, cotangents, strict=True)
    return [(x, cotangent) for x, cotangent in pairs if isinstance(x, GradientEdge) or x.requires_grad]


@contextmanager
def cut_at(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Let VJPs end at tensors with a history, which are among their inputs, and not run into what these came from.

    Autograd captures the cotangent of an input before it calls the hook of the node that made it.
    """
    handles = [x.grad_fn.register_prehook(partial(_without, x.output_nr)) for x in tensors if x.grad_fn is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without(index: int, cotangents: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return the cotangents of a node's outputs without one of them."""
    return tuple(None if i == index else x for i, x in enumerate(cotangents))


@contextmanager
def hooks_suspended(params: Sequence[Tensor]) -> Iterator[None]:
    """Suspend the tensors' own hooks and retained gradients.

    The user's hooks on a parameter expect the whole gradient, but would clip, scale or count each part of it, and
    retain_grad() would add each part to .grad. Another thread may end a backward pass at the same parameter meanwhile.
    """
    hooked = [p for p in params if p._backward_hooks or p.retains_grad]
    retained = [(p, p.grad) for p in hooked if p.retains_grad]
    dicts = [hooks for p in hooked if (hooks := p._backward_hooks)]
    suspended = [pair for hooks in dicts for pair in _suspend(hooks)]
    try:
        yield
    finally:
        for hooks, key in suspended:
            _resume(hooks, key)
        for p, grad in retained:
            p.grad = grad


def _suspend(hooks: dict[Any, Any]) -> list[tuple[dict[Any, Any], Any]]:
    """Suspend the hooks in a dict, to which autograd keeps a reference and which it may read in another thread."""
    with _SUSPENDING:
        for key, hook in hooks.items():
            if not isinstance(hook, _SuspendedHook):
                hook = hooks[key] = _SuspendedHook(hook)
            hook.threads.append(get_ident())
        return [(hooks, key) for key in hooks]


def _resume(hooks: dict[Any, Any], key: Any) -> None:
    with _SUSPENDING:
        hook = hooks.get(key)
        if isinstance(hook, _SuspendedHook):  # func has not removed it
            hook.threads.remove(get_ident())
            if not hook.threads:
                hooks[key] = hook.hook


class _SuspendedHook:
    """A hook that is called only where another thread of Python has a whole gradient for it.

    Autograd's own threads work for one of the threads that suspended it.
    """

    def __init__(self, hook: Callable[[Tensor], Tensor | None]):
        self.hook = hook
        self.threads: list[int] = []

    def __call__(self, grad: Tensor) -> Tensor | None:
        return self.hook(grad) if runs_in_another_thread(self.threads) else None


_SUSPENDING = Lock()
