"""Tensors that func hands out: it puts them where its caller reads them after the solve, a penalty for example.

Of the calls in the forward pass only the first has a graph, and that is not the caller's: what func hands out would
have no gradient, and a sum over all calls that of one term. So it gets a node whose backward pass is an error.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.graph import Node

from symplectic_adjoint.errors import LostGradient
from symplectic_adjoint.field.held_values import is_kind, shown_key
from symplectic_adjoint.field.libraries import own_class
from symplectic_adjoint.field.module_tensors import STANDARD_ATTRIBUTES
from symplectic_adjoint.field.reach import Reach
from symplectic_adjoint.field.stores import Attributes, Entries, Store
from symplectic_adjoint.field.watched_values import MOST_WATCHED


class HandedOut:
    """The tensors that func's first call puts into attributes, variables, lists and dicts."""

    def __init__(self, reach: Reach):
        self._reach = reach
        self._found: list[_Found] = []

    def note(self, first_node: int) -> None:
        """Note what the last call put somewhere. first_node: how many nodes autograd had made before it."""
        for store in self._stores():
            for key, x in _newest(store):
                if is_kind(x, Tensor) and x.grad_fn is not None and x.grad_fn._sequence_nr() >= first_node:
                    self._found.append(_Found(store, key, x))

    def refuse(self, inputs: Sequence[Tensor]) -> None:
        """Let a backward pass through what was handed out raise LostGradient. Call this after the forward pass.

        A value that later calls found in its place was kept for them, and has its gradient. inputs: the tensors of
        which it would be a function.
        """
        wanted = [x for x in inputs if x.requires_grad]
        for one in self._found:
            one.refuse(wanted)
        self._found.clear()

    def _stores(self) -> Iterator[Store]:
        """Yield where func may put values: what it names, its modules, and the lists and dicts of these."""
        modules = [
            Attributes(f"{name}.{path}" if path else name, module)
            for name, root in self._reach.roots
            for path, module in root.named_modules()
            if own_class(type(module)) is not None  # a layer of torch's keeps the weight that it computes
        ]
        seen = set[int]()
        for store in (*self._reach.stores, *modules):
            yield store
            held = store.read() if isinstance(store, Attributes) else {}
            for key, x in held.items():
                if is_kind(x, (list, dict)) and key not in STANDARD_ATTRIBUTES and id(x) not in seen:
                    seen.add(id(x))
                    yield Entries(store.form.format(key), x)


class _Found:
    """A tensor that a call put at a key of a store. It is not kept alive."""

    def __init__(self, store: Store, key: Any, x: Tensor):
        self._store, self._key, self._reference = store, key, ref(x)
        self._length = len(store) if isinstance(store, Entries) else 0

    def refuse(self, inputs: Sequence[Tensor]) -> None:
        """Replace what calls put there by tensors without a backward pass, if it was not kept for later calls."""
        store, place = self._store, self._store.form.format(shown_key(self._key))
        try:
            put = [(self._key, store.get(self._key))]
        except LookupError:  # func has taken it away again
            put = []
        if isinstance(store, Entries) and len(store) > self._length:
            place = place.rpartition("[")[0]
            put += islice(store.from_the_end(), len(store) - self._length)
        elif put and put[0][1] is self._reference():
            return
        for key, x in put:
            if is_kind(x, Tensor) and x.dtype.is_floating_point | x.dtype.is_complex:
                store.put(key, _WithoutBackward.apply(x, place, *inputs))


def _newest(store: Store) -> Iterable[tuple[Any, Any]]:
    """Return the entries of a store, of a long list or dict the last ones."""
    if isinstance(store, Entries):
        return list(islice(store.from_the_end(), MOST_WATCHED))
    return store.read().items()


def place_of(node: Node) -> str | None:
    """Return where func put the tensor that this node made, if it was handed out."""
    return cast(Any, node).place if type(node) is _NODE else None


class _WithoutBackward(torch.autograd.Function):
    """A tensor that needs a gradient, as a function of inputs, and has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: str, *inputs: Tensor) -> Tensor:
        del inputs  # only so that a graph leads to them
        ctx.place = place
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        del cotangents
        raise LostGradient(
            f"func put a tensor into {ctx.place} in its calls, and the loss uses it: the solve gives a gradient for "
            "its solution alone. Integrate such a value as a part of the state, compute it from the solution after "
            'the solve, or use gradient="backprop"'
        )


_NODE: type = cast(Any, _WithoutBackward)._backward_cls
