"""A card that is not there: tensors with values in host memory, on a device of their own that the host can wait for.

Everything that torch does with them is seen, so that reads by the host and transfers are counted, and devices that do
not belong together are refused as by a real card. Streams, kernels and memory are not pretended.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
"""A device that torch knows, without values and streams of its own."""

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense,
    aten.equal,
    aten.is_nonzero,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
}
"""The operators for which the host waits, whatever their arguments."""


class OnCard(torch.Tensor):
    """A tensor on the card. value: where its values are."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value):
        return torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device=DEVICE
        )

    def __init__(self, value):
        self.value = value

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self):
        return f"OnCard({self.value!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside of the pretended card")


class PretendCard(TorchDispatchMode):
    """While this mode is active, tensors can be made on DEVICE. waits: the operators for which the host waited."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        here = [x for x in tensors if isinstance(x, OnCard)]
        to = kwargs.get("device")
        if to is not None and torch.device(to) == DEVICE:
            kwargs["device"] = torch.device("cpu")
        goes_to_card = bool(here) if to is None else torch.device(to) == DEVICE
        moved = to is not None and bool(tensors) and bool(here) != goes_to_card
        if moved and goes_to_card and kwargs.get("non_blocking"):
            moved = False  # from pinned memory
        self._note(func, tensors, here, args, moved=moved)
        originals = {}
        """The tensors given, by their values: an operation in place returns one of them."""

        def unwrapped(x):
            originals[id(x.value)] = x
            return x.value

        args, kwargs = tree_map_only(OnCard, unwrapped, (args, kwargs))
        result = func(*args, **kwargs)
        if not goes_to_card:
            return result
        return tree_map_only(torch.Tensor, lambda x: originals[id(x)] if id(x) in originals else OnCard(x), result)

    def _note(self, func, tensors, here, args, *, moved):
        mixed = bool(here) and any(x.ndim > 0 for x in tensors if not isinstance(x, OnCard))
        packet = func.overloadpacket
        copied = packet is aten.copy_ and 0 < len(here) < len(tensors)
        read = here and (packet in READS or (packet is aten.index and any(map(_must_be_read, args[1]))))
        if moved or copied or read:
            self.waits.append(str(func))
        elif mixed:
            raise RuntimeError(f"{func}: tensors on two devices")


def _must_be_read(index):
    """Return whether the host waits to index by a tensor: by a mask, or by positions that are not on the card."""
    return index is not None and (index.dtype == torch.bool or not isinstance(index, OnCard))


def on_card(x):
    """Return a tensor, or a module in place, on the card."""
    if not isinstance(x, torch.nn.Module):
        return OnCard(x.detach().clone()).requires_grad_(x.requires_grad)
    for module in x.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(OnCard(p.detach().clone()), p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = OnCard(b.detach().clone())
    return x
