"""The state that func's value depends on besides t and y, captured in the forward pass and reinstated to recompute.

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
    bindings_restored,
    installed,
    module_tensors_in,
    values_restored,
)


class ForwardState:
    """The state that func depends on in one solve, from its first f call on.

    modules: those of func, or those that a plain function names.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device):
        self.rng = ForwardRng(device)
        self.lock = lock_of(modules)
        """Held while func is called, because a sweep replaces the parameters of its modules."""
        self._modules = modules
        self._buffers = [module_tensors_in(m._buffers) for m in self._modules if m._buffers]
        self._attributes = self._find_attributes()
        self._attribute_nodes = {x.tensor.grad_fn for x in self._attributes} - {None}
        self._reached_nodes: set[Node] = set()
        """The nodes of those attributes that func's graph reaches."""
        self._final_tensors: list[ModuleTensor] = []
        """The tensors that the modules held at the end of the solve."""
        self._changed_buffers: list[ModuleTensor] = []
        """The buffers that func changes when it is called."""
        self.unchanged_tensors: list[Tensor] = []
        """The tensors that func did not change in the solve: buffers, and plain attributes of its modules."""
        self._known_repeatable = False
        self._modes = [(m, m.training) for m in self._modules]
        self._device_type = device.type
        available = torch.amp.is_autocast_available(self._device_type)
        self._autocast = available and torch.is_autocast_enabled(self._device_type)
        self._autocast_dtype = torch.get_autocast_dtype(self._device_type) if self._autocast else None

    def _find_attributes(self) -> list[ModuleTensor]:
        return [x for m in self._modules for x in module_tensors_in(vars(m), exclude=STANDARD_ATTRIBUTES)]

    @property
    def has_buffers(self) -> bool:
        """Whether the modules have buffers, which func may change when it is called."""
        return bool(self._buffers)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of autocast in the solve, None if it was off."""
        return self._autocast_dtype

    def require_compilable(self) -> None:
        """Raise UnsupportedCombination if func draws random numbers or changes buffers, or if autocast is on.

        Call this after the first call of func.
        """
        draws, changes = not self.rng.draws_nothing, any(x.changed() for own in self._buffers for x in own)
        for found, what in ((draws, "draws random numbers"), (changes, "changes buffers of its module")):
            if found:
                raise UnsupportedCombination(
                    f"compile=True: func {what}, which compiled code would not do: leave compile out"
                )
        if self._autocast:
            raise UnsupportedCombination("compile=True does not work under autocast: leave one of the two out")

    def locate(self, tensors: Sequence[Tensor]) -> list[list[ModuleTensor]]:
        """Return, for each tensor, all places in modules that func may reach where it is held."""
        locations: dict[int, list[ModuleTensor]] = {id(x): [] for x in tensors}
        for held in self._final_tensors:
            if id(held.tensor) in locations:
                locations[id(held.tensor)].append(held)
        return [locations[id(x)] for x in tensors]

    def mark_reached(self, node: Node) -> None:
        """Record that func's graph reaches this node."""
        if node in self._attribute_nodes:
            self._reached_nodes.add(node)

    def finish(self) -> None:
        """Capture the state at the end of a solve, even a failed one, and leave the generators as func would."""
        self.rng.finish()
        self._attribute_nodes.clear()
        self._attributes = [x for x in self._attributes if self._may_hold(x.tensor)]
        # A module's buffers change together: BatchNorm hides some changes from autograd.
        self._changed_buffers = [x for own in self._buffers if any(y.changed() for y in own) for x in own]
        self._final_tensors = [x for m in self._modules for x in module_tensors_in(m._parameters)]
        self._final_tensors += [x for m in self._modules if m._buffers for x in module_tensors_in(m._buffers)]
        self._final_tensors += [x for x in self._find_attributes() if self._may_hold(x.tensor)]
        unchanged = [x for own in self._buffers for x in own if x not in self._changed_buffers]
        unchanged += [x for x in self._attributes if not x.changed()]
        self.unchanged_tensors = [x.tensor for x in unchanged if x.version is not None]

    def _may_hold(self, attribute: Tensor) -> bool:
        """Return whether an attribute may be held between the passes.

        If func's graph does not reach its graph, it may be the output of an earlier solve, and would keep that alive.
        """
        return attribute.grad_fn is None or attribute.grad_fn in self._reached_nodes

    def require_repeatable(self, repeats_first_call: Callable[[], bool]) -> None:
        """Raise UnsupportedCombination if a repeated call would not return what it returned in the solve.

        repeats_first_call repeats func's first call and compares the values. Call this after finish().
        """
        if self._known_repeatable:
            return
        self.rng.require_repeatable()
        if self._changed_buffers:
            with self.reinstated():
                repeats = repeats_first_call()
            if not repeats:
                names = ", ".join(sorted({repr(x.name) for x in self._changed_buffers}))
                raise UnsupportedCombination(
                    f"func changes buffers of its module ({names}) and its value depends on them (spectral norm in "
                    "training mode does this): a call in the backward pass would not return what it returned in the "
                    'forward pass. Call func.eval(), or use gradient="backprop"'
                )
        self._known_repeatable = True

    @contextmanager
    def reinstated(self) -> Iterator[None]:
        """Reinstate the state of the solve, with the lock held, and restore the current state at the end."""
        attributes = bindings_restored([vars(m) for m in self._modules], exclude=STANDARD_ATTRIBUTES)
        with (
            self.lock,
            attributes,
            installed(self._final_tensors),
            values_restored(self._changed_buffers),
            self.rng.reinstated(),
            self._autocast_of_solve(),
        ):
            modes = [(module, module.training) for module, training in self._modes if module.training != training]
            for module, training in modes:
                module.training = not training
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training

    def _autocast_of_solve(self) -> Any:
        """Return autocast as it was in the solve, without its cache.

        With the cache, many calls would share one cast weight, and autograd would sum their gradients in its low
        precision.
        """
        device_type, dtype = self._device_type, self._autocast_dtype
        if not torch.amp.is_autocast_available(device_type):
            return nullcontext()
        return torch.autocast(device_type, dtype=dtype, enabled=self._autocast, cache_enabled=False)
