"""A stand-in for CUDA graphs on the CPU: programs are recorded as operations, and replayed without Python.

Like a graph it freezes every number and every address, and runs nothing while it records.
"""

from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraphs:
    """Records programs as CudaGraphs does. recorded: how many, of all objects of this class."""

    runs_python = False
    recorded = 0

    def __init__(self, device):
        self.device = device

    def aside(self):
        return nullcontext()

    def record(self, body):
        tape = _Tape()
        with tape:
            body()
        tape.undo()
        RecordedGraphs.recorded += 1
        return tape.replay

    def enter(self): ...

    def leave(self): ...


class _Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self._calls = []
        self._made = set()
        self._before = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for x in self._written(func, args, kwargs):
            storage = x.untyped_storage()
            if storage.data_ptr() not in self._made and storage.data_ptr() not in self._before:
                self._before[storage.data_ptr()] = (storage, storage.clone())
        out = func(*args, **kwargs)
        if not _is_view(func):
            inputs = {x.untyped_storage().data_ptr() for x in tensors((args, kwargs))}
            fresh = [x for x in tensors(out) if x.untyped_storage().data_ptr() not in inputs]
            self._made |= {x.untyped_storage().data_ptr() for x in fresh}
            self._calls.append((func, args, kwargs, out, fresh))
        return out

    @staticmethod
    def _written(func, args, kwargs):
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from tensors(args[i] if i < len(args) else kwargs.get(argument.name))

    def undo(self):
        """Put back what recording changed: on a card nothing runs meanwhile."""
        for storage, before in self._before.values():
            storage.copy_(before)
        self._before.clear()

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out, fresh in self._calls:
            again = func(*args, **kwargs)
            if fresh:
                for x, new in zip(tensors(out), tensors(again), strict=True):
                    if any(x is one for one in fresh):
                        x.detach().copy_(new)


def tensors(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def _is_view(func):
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
