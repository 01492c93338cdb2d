"""What func's value depends on besides t and y, kept so that a call on the way back is the call of the way there.

Autocast, training modes, random numbers and the tensors that a module holds belong to the process or the module, not
to the arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.forward_rng import ForwardRng
from symplectic_adjoint.field.module_lock import lock_of
from symplectic_adjoint.field.module_tensors import (
    STANDARD_ATTRIBUTES,
    ModuleTensor,
    as_found,
    in_place,
    module_tensors_in,
    restored,
)


class ForwardState:
    """Those of one solve, from its first f call on. modules are func's, or those that a plain function names."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device):
        self.rng = ForwardRng(device)
        self.lock = lock_of(modules)
        """Held while func is called: a sweep puts other tensors in its modules' places."""
        self._modules = modules
        self._buffers = [module_tensors_in(m._buffers) for m in self._modules if m._buffers]
        self._attributes = [slot for m in self._modules for slot in module_tensors_in(vars(m), but=STANDARD_ATTRIBUTES)]
        self._computed = {slot.tensor.grad_fn for slot in self._attributes} - {None}
        self._read: set[Node] = set()
        self._held: list[ModuleTensor] = []
        """What the modules held at the end of the solve."""
        self._changed: list[ModuleTensor] = []
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

    def require_fixed(self) -> None:
        """After the first call: raises UnsupportedCombination for what compiled code does not see change."""
        draws, changes = not self.rng.none, any(x.changed() for own in self._buffers for x in own)
        for found, what in ((draws, "draws random numbers"), (changes, "changes buffers of its module")):
            if found:
                raise UnsupportedCombination(
                    f"compile=True: func {what}, which compiled code would not do: leave it out"
                )
        if self._autocast:
            raise UnsupportedCombination("compile=True does not work under autocast: leave one of the two out")

    def places_of(self, tensors: Sequence[Tensor]) -> list[list[ModuleTensor]]:
        """Where modules that func may reach hold each of the tensors."""
        places: dict[int, list[ModuleTensor]] = {id(x): [] for x in tensors}
        for slot in self._held:
            if id(slot.tensor) in places:
                places[id(slot.tensor)].append(slot)
        return [places[id(x)] for x in tensors]

    def sees(self, node: Node) -> None:
        """func's graph leads to this node."""
        if node in self._computed:
            self._read.add(node)

    def finish(self) -> None:
        """At the end of a solve, also of one that failed: what it leaves behind, and what it had."""
        self.rng.finish()
        self._computed.clear()
        self._attributes = [slot for slot in self._attributes if self._holds(slot.tensor)]
        # A module's buffers change together: BatchNorm hides some changes from autograd.
        self._changed = [slot for own in self._buffers if any(x.changed() for x in own) for slot in own]
        self._held = [slot for m in self._modules for slot in module_tensors_in(m._parameters)]
        self._held += [slot for m in self._modules if m._buffers for slot in module_tensors_in(m._buffers)]
        attributes = [slot for m in self._modules for slot in module_tensors_in(vars(m), but=STANDARD_ATTRIBUTES)]
        self._held += [slot for slot in attributes if self._holds(slot.tensor)]

    def _holds(self, attribute: Tensor) -> bool:
        """Not one whose graph func's does not lead to: it may be the last solve's output, and hold that solve."""
        return attribute.grad_fn is None or attribute.grad_fn in self._read

    def settle(self, agrees: Callable[[], bool]) -> None:
        """After a solve: raises UnsupportedCombination where a call would not give again what it gave before.

        agrees calls func once more where it was called first and compares.
        """
        if self._settled:
            return
        self.rng.settle()
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
        found = as_found([vars(m) for m in self._modules], but=STANDARD_ATTRIBUTES)
        with self.lock, found, in_place(self._held), restored(self._changed), self.rng.again(), self._cast():
            modes = [(module, module.training) for module, training in self._modes if module.training != training]
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
