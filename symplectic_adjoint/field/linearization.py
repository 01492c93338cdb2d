"""One call of f on the graph, and how cotangents are pulled back through it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.autograd.graph import GradientEdge


class Pull(Protocol):
    """A function that pulls cotangents back through a graph and keeps the parameters' part."""

    def __call__(
        self,
        outputs: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        /,
        *,
        by_params: bool = False,
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
def hooks_suspended(params: Sequence[Tensor]) -> Iterator[None]:
    """Suspend the tensors' own hooks and retained gradients.

    The user's hooks on a parameter expect the whole gradient, but would clip, scale or count each part of it, and
    retain_grad() would add each part to .grad. The dict of hooks is emptied, not replaced, because autograd keeps a
    reference to it.
    """
    hooked = [p for p in params if p._backward_hooks or p.retains_grad]
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
