"""The key of recorded programs: everything that they freeze.

A program keeps the addresses of the tensors that func uses and every number that its code read in Python. What the key
cannot tell, each solve finds by comparing two values of func with those of the program.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from numbers import Number
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.held_values import is_kind
from symplectic_adjoint.field.module_tensors import attributes_of, tensors_among
from symplectic_adjoint.field.stores import Attributes
from symplectic_adjoint.field.watched_values import SCALARS

_WRITTEN = (*SCALARS, slice, range, Number, Enum, frozenset)
"""Types whose values are told apart by how they are written. numpy's numbers are Numbers."""

_PARTS = (
    "the shape or dtype of the state differs",
    "the default dtype differs",
    "the precision of products differs",
    "autocast differs",
    "the modes of its modules differ",
    "its tensors lie at other addresses",
    "numbers that it reads differ",
)


def program_key(state: ForwardState, counters: CallCounters, tensors: Iterable[Tensor], like: Tensor) -> Any:
    """Return the key of programs that call func in this state, for states like `like`.

    tensors: those that func uses as parameters. counters: the numbers that func's calls change, which do not count.
    """
    reached = (x.tensor for x in state.reach.tensors)
    kept = (x for store in state.reach.stores for x in store.read().values() if is_kind(x, Tensor))
    held = [*tensors, *(x.tensor for x in state.places), *(x for x in reached if x is not None)]
    held += [*(x.tensor for x in tensors_among(attributes_of(state.reach.modules))), *kept]  # made by the first call
    ids = {id(x): x for x in held}
    return (
        _kind(like),
        torch.get_default_dtype(),
        _precision_flags(),
        state.autocast_dtype,
        tuple(m.training for m in state.reach.modules if hasattr(m, "training")),
        tuple(map(_place, ids.values())),
        tuple(_values(state, counters)),
    )


def what_changed(before: Any, now: Any) -> str:
    """Return the first part in which two keys differ, in words."""
    parts = zip(_PARTS, before, now, strict=True)
    return next((words for words, a, b in parts if a != b), "the method or the options differ")


def _place(x: Tensor) -> Any:
    """Return where a tensor lies, and its kind. A sparse one has no single place."""
    if x.layout != torch.strided:
        return id(x), x._version, x.shape, x.dtype
    return x.data_ptr(), x.requires_grad, _kind(x)


def _kind(x: Tensor) -> Any:
    return x.shape, x.stride(), x.dtype, x.device


def _precision_flags() -> Any:
    cudnn: Any = torch.backends.cudnn
    return (
        torch.backends.cuda.matmul.fp32_precision,
        cudnn.conv.fp32_precision,
        cudnn.rnn.fp32_precision,
        torch.are_deterministic_algorithms_enabled(),
    )


def _values(state: ForwardState, counters: CallCounters) -> Iterator[Any]:
    counted = {(id(x.store.holder), x.key) for x in counters.found if isinstance(x.store, Attributes)}
    paths = {x.path for x in counters.found}
    for holder, name, x in state.values.held:
        if (id(holder), name) not in counted:
            yield name, _value(x)
    for hooks in state.values.hooks:
        yield tuple(map(id, hooks.values()))
    for name, x in state.reach.values:
        if name not in paths:
            yield name, _value(x)
    for watched in state.reach.watched:
        for name, x in watched.held.items():
            if watched.path_of(name) not in paths:
                yield name, _value(x)


def _value(x: Any) -> Any:
    """Return what tells x from another value: its type and how it is written, or which object it is."""
    if is_kind(x, ref):  # a tensor, which the key has by its place
        return Tensor
    return (type(x), repr(x)) if is_kind(x, (*_WRITTEN, torch.dtype, torch.device)) else id(x)
