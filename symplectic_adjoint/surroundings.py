"""What func's value depends on besides t and y, kept so that a call on the way back is the call of the way there.

Autocast, training modes, random numbers and the tensors that a module holds belong to the process or the module, not
to the arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from symplectic_adjoint.draws import Draws
from symplectic_adjoint.errors import UnsupportedCombination


class Surroundings:
    """Those of one solve, from its first f call on. module is func's, None where func is a plain function."""

    def __init__(self, module: nn.Module | None, device: torch.device):
        self.draws = Draws(device)
        self._modules = list(module.modules()) if module is not None else []
        self._buffers = [own for m in self._modules if (own := slots_in(m._buffers))]
        self._attributes = [slot for m in self._modules for slot in slots_in(vars(m))]
        self._computed = {slot.tensor.grad_fn for slot in self._attributes} - {None}
        self._read: set[Node] = set()
        self._held: list[Slot] = []
        """What the modules held at the end of the solve."""
        self._changed: list[Slot] = []
        """The buffers that func changes when it is called."""
        self._settled = False
        self._modes = [(m, m.training) for m in self._modules]
        self._kind = device.type
        self._autocast = torch.amp.is_autocast_available(self._kind) and torch.is_autocast_enabled(self._kind)
        self._autocast_dtype = torch.get_autocast_dtype(self._kind) if self._autocast else None

    @property
    def watches(self) -> bool:
        """Whether there is anything that func could change."""
        return bool(self._buffers)

    @property
    def constant(self) -> list[Tensor]:
        """The tensors that func only reads: buffers, and plain attributes of its modules."""
        slots = [slot for own in self._buffers for slot in own if slot not in self._changed]
        slots += [slot for slot in self._attributes if not slot.changed()]
        return [slot.tensor for slot in slots if slot.version is not None]

    def sees(self, node: Node) -> None:
        """func's graph leads to this node."""
        if node in self._computed:
            self._read.add(node)

    def finish(self) -> None:
        """At the end of a solve, also of one that failed: what it leaves behind, and what it had."""
        self.draws.finish()
        self._computed.clear()
        self._attributes = [slot for slot in self._attributes if self._holds(slot.tensor)]
        # A module's buffers change together: BatchNorm hides some changes from autograd.
        self._changed = [slot for own in self._buffers if any(x.changed() for x in own) for slot in own]
        own = [slot for m in self._modules for kind in (m._parameters, m._buffers) for slot in slots_in(kind)]
        attributes = [slot for m in self._modules for slot in slots_in(vars(m)) if self._holds(slot.tensor)]
        self._held = own + attributes

    def _holds(self, attribute: Tensor) -> bool:
        """Not one whose graph func's does not lead to: it may be the last solve's output, and hold that solve."""
        return attribute.grad_fn is None or attribute.grad_fn in self._read

    def settle(self, agrees: Callable[[], bool]) -> None:
        """After a solve: raises UnsupportedCombination where a call would not give again what it gave before.

        agrees calls func once more where it was called first and compares.
        """
        if self._settled:
            return
        self.draws.settle()
        if self._changed:
            with self.again():
                same = agrees()
            if not same:
                names = ", ".join(sorted({repr(slot.name) for slot in self._changed}))
                raise UnsupportedCombination(
                    f"func changes buffers of its module ({names}) and its value depends on them (spectral norm in "
                    "training mode does this): a call on the way back would not give what it gave on the way there. "
                    'Call func.eval(), or take gradient="backprop"'
                )
        self._settled = True

    @contextmanager
    def again(self) -> Iterator[None]:
        """As they were for the solve, whatever they are now; all as found at the end."""
        modes = [(module, module.training) for module, training in self._modes if module.training != training]
        with put_back(self._held), restored(self._changed), self.draws.again(), self._cast():
            for module, training in modes:
                module.training = not training
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training

    def _cast(self) -> Any:
        """Autocast as it was, but without its cache.

        That would hand one cast weight to many calls, whose gradients would be summed in its low precision.
        """
        if not torch.amp.is_autocast_available(self._kind):
            return nullcontext()
        return torch.autocast(self._kind, dtype=self._autocast_dtype, enabled=self._autocast, cache_enabled=False)


@dataclass(frozen=True, eq=False)
class Slot:
    """A tensor that a module holds, by name, in one of its dicts; as it is when this is made."""

    holder: dict[str, Any]
    name: str
    tensor: Tensor
    version: int | None

    def changed(self) -> bool:
        """Whether it was written into, or is another tensor now."""
        now = self.holder.get(self.name)
        return now is not self.tensor or _version(self.tensor) != self.version


def slots_in(holder: dict[str, Any]) -> list[Slot]:
    return [Slot(holder, name, x, _version(x)) for name, x in holder.items() if isinstance(x, Tensor)]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


@contextmanager
def put_back(slots: Sequence[Slot]) -> Iterator[None]:
    """The tensors are where they were, for functional_call and for whoever replaces one between the passes."""
    found = [(slot, slot.holder.get(slot.name)) for slot in slots if slot.holder.get(slot.name) is not slot.tensor]
    for slot, _ in found:
        slot.holder[slot.name] = slot.tensor
    try:
        yield
    finally:
        for slot, tensor in found:
            slot.holder[slot.name] = tensor


@contextmanager
def restored(slots: Sequence[Slot]) -> Iterator[None]:
    """The tensors are at the end what they are now."""
    tensors = [slot.holder[slot.name] for slot in slots]
    values = [None if x is None else x.clone() for x in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for slot, x, value in zip(slots, tensors, values, strict=True):
                slot.holder[slot.name] = x
                if value is not None:
                    x.copy_(value)
