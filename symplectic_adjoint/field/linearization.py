"""One f on the graph at one point, and how cotangents are pulled back through it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.autograd.graph import GradientEdge


class Pull(Protocol):
    """A function that pulls cotangents back through a graph and takes the parameters' part for itself."""

    def __call__(
        self,
        reached: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        /,
        *,
        by_params: bool = False,
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of inputs.

        by_params: whether the graph leads to the parameters themselves, even where aliases stand in for them now.
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
    """Whether it leads to the parameters, or to the aliases that stood in for them when it was made."""


def on_a_graph(
    reached: Sequence[Tensor | GradientEdge], cotangents: Sequence[Tensor]
) -> list[tuple[Tensor | GradientEdge, Tensor]]:
    """Return the tensors and edges that have a graph, each with its cotangent."""
    pairs = zip(reached, cotangents, strict=True)
    return [(x, seed) for x, seed in pairs if isinstance(x, GradientEdge) or x.requires_grad]


@contextmanager
def silenced_hooks(params: Sequence[Tensor]) -> Iterator[None]:
    """Suspend the tensors' own hooks and retained gradients.

    Hooks that the user registered on a parameter wait for the whole gradient: they would clip, scale or count each
    part of it, and retain_grad() would add each part to .grad. Autograd sees an emptied dict, not a replaced one.
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
