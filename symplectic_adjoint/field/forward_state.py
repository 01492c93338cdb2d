"""The state that func's value depends on besides t and y, captured in the forward pass and reinstated to recompute.

Autocast, training modes, random numbers and what a module holds belong to the process or the module, not to the
arguments.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import EnableTorchFunction, subclasses_are_heard
from symplectic_adjoint.errors import FunctionChanged, UnsupportedCombination
from symplectic_adjoint.field.autocast import autocast_is_on
from symplectic_adjoint.field.forward_rng import ForwardRng
from symplectic_adjoint.field.guarded_tensors import GuardedTensors
from symplectic_adjoint.field.host_reads import is_capturing
from symplectic_adjoint.field.module_lock import ModuleLock, lock_of
from symplectic_adjoint.field.module_tensors import (
    ModuleTensor,
    all_held,
    attributes_of,
    attributes_restored,
    installed,
    module_tensors_in,
    tensors_among,
    values_restored,
)
from symplectic_adjoint.field.module_values import ModuleValues, put_back
from symplectic_adjoint.field.reach import Reach
from symplectic_adjoint.field.reach_walk import reach_of
from symplectic_adjoint.field.read_tensors import Reads
from symplectic_adjoint.field.stand_ins import StandIns


class ForwardState:
    """The state that func depends on in one solve, from its first f call on.

    reach: what func reaches. detached: whether the solve is off the caller's graph, so that stand-ins may replace
    tensors with a history. lock: that of the solve, which covers func's modules.
    """

    def __init__(self, reach: Reach, device: torch.device, lock: ModuleLock | None = None, *, detached: bool = True):
        self.rng = ForwardRng(device, reach.opaque_modules)
        self.reach = reach
        self.lock = lock or lock_of(reach.modules)
        """Held while func is called, because a sweep replaces the parameters of its modules."""
        self._modules = reach.modules
        self._buffers = [module_tensors_in(m._buffers) for m in self._modules if m._buffers]
        attributes = attributes_of(self._modules)
        self._attributes = tensors_among(attributes)
        self.values = ModuleValues(self._modules, attributes)
        self.places = places = self._places()
        """The places that hold a tensor and can hold another one: in modules and in copied functions."""
        self.stand_ins = StandIns(places if detached else [])
        self.reads = Reads(self._constants(places), hidden=bool(reach.opaque_modules))
        """The tensors that func's searched calls read, of those that require no gradient."""
        self._reached: set[int] = set()
        """The ids of the attributes with a history that func's graph reaches."""
        self._final_tensors: list[ModuleTensor] = []
        """The tensors that the modules held at the end of the solve."""
        self._changed_buffers: list[ModuleTensor] = []
        """The buffers that func changes when it is called."""
        self.guarded = GuardedTensors(())
        """The tensors that func used in the solve and did not change."""
        self._known_repeatable = False
        self._modes = [(m, m.training) for m in self._modules if hasattr(m, "training")]  # frozen TorchScript has none
        self._device, self._device_type = device, device.type
        self._hears_subclasses = subclasses_are_heard()
        self._autocast = autocast_is_on(self._device_type)
        self.autocast_dtype = torch.get_autocast_dtype(self._device_type) if self._autocast else None
        """The dtype of autocast; None if it is off."""

    def _places(self) -> list[ModuleTensor]:
        """Return every place that holds a tensor and can hold another one: in modules and in copied functions."""
        own = [x for m in self._modules for x in module_tensors_in(m._parameters)]
        buffers = [x for own in self._buffers for x in own]
        return own + buffers + self._attributes + self.reach.places

    def _constants(self, places: Sequence[ModuleTensor]) -> list[Tensor]:
        """Return the tensors that func may read and that require no gradient, those at these places included."""
        held = [x.tensor for x in places] + [x.tensor for x in self.reach.tensors]
        return [x for x in held if x is not None and not x.requires_grad and (x.is_floating_point() or x.is_complex())]

    @property
    def candidates(self) -> list[Tensor]:
        """The tensors with a history that func reaches, each of which is a parameter if func uses it."""
        held = [*(x.tensor for x in self._attributes), *(x.tensor for x in self.reach.tensors)]
        held = [*self.stand_ins.originals, *(x for x in held if x is not None and x.grad_fn is not None)]
        return list({id(x): x for x in held}.values())

    def kept_since_the_start(self) -> list[Tensor]:
        """Return the tensors without a gradient that func has put somewhere since the solve began."""
        before = {id(x.tensor) for x in self.reach.tensors}
        now = [x.tensor for x in reach_of(self.reach.func).tensors]
        return [x for x in now if x is not None and id(x) not in before and not x.requires_grad]

    def mark_reached(self, x: Tensor) -> None:
        """Note that func's graph reaches a tensor."""
        self._reached.add(id(x))

    @property
    def has_buffers(self) -> bool:
        """Whether the modules have buffers, which func may change when it is called."""
        return bool(self._buffers)

    def require_pure(self, option: str, kind: type[UnsupportedCombination]) -> None:
        """Raise an error of this kind, which names the option, if func draws random numbers or changes buffers."""
        draws, changes = not self.rng.draws_nothing, any(x.changed() for own in self._buffers for x in own)
        for found, what in ((draws, "draws random numbers"), (changes, "changes buffers of its module")):
            if found:
                name = option.partition("=")[0]
                raise kind(f"{option}: func {what}, which {name}d code would not do: leave {name} out")

    def require_compilable(self, *, float16: bool) -> None:
        """Raise UnsupportedCombination if func draws random numbers or changes buffers, or if autocast is on.

        float16: whether func computes in float16, whose VJPs need scaled cotangents; that is refused too.

        Call this after the first call of func.
        """
        self.require_pure("compile=True", UnsupportedCombination)
        if self._autocast:
            raise UnsupportedCombination("compile=True does not work under autocast: leave one of the two out")
        if float16:
            raise UnsupportedCombination("compile=True does not work with a func that computes in float16")

    def locate(self, tensors: Sequence[Tensor]) -> list[list[ModuleTensor]]:
        """Return, for each tensor, all places that func may reach where it is held."""
        locations: dict[int, list[ModuleTensor]] = {id(x): [] for x in tensors}
        for held in (*self._final_tensors, *self.reach.places):
            if id(held.tensor) in locations:
                locations[id(held.tensor)].append(held)
        return [locations[id(x)] for x in tensors]

    def name_of(self, x: Tensor) -> str:
        """Return the expression by which func reaches a tensor, or its shape if there is none."""
        return self.reach.name_of(x) or f"a tensor of shape {tuple(x.shape)}, {x.dtype}"

    @contextmanager
    def first_pass(self) -> Iterator[None]:
        """Hold the lock, with the stand-ins in place, and capture the state at the end, even of a failed solve."""
        try:
            with self.lock, self.stand_ins.installed(), self.reach.copied.followed():
                if self.stand_ins.are_seen:
                    self.lock.mark_replaced()
                yield
        finally:
            self._finish()

    def _finish(self) -> None:
        """Capture the state at the end of a solve, and leave the generators as func would."""
        self.places = []  # one may hold the output of an earlier solve
        self.rng.finish()
        self.stand_ins.keep(self._reached)
        self.values.forget_changed()
        for x in self.reach.watched:
            x.forget_changed()
        before = {id(x.tensor) for x in self._attributes}
        self._attributes = [x for x in self._attributes if self._may_hold(x.tensor)]
        # A module's buffers change together: BatchNorm hides some changes from autograd.
        self._changed_buffers = [x for own in self._buffers if any(y.changed() for y in own) for x in own]
        self._final_tensors = [x for m in self._modules for x in module_tensors_in(m._parameters)]
        self._final_tensors += [x for m in self._modules if m._buffers for x in module_tensors_in(m._buffers)]
        # A new one is func's own: a value that its first call computed, with a graph, and kept.
        own = tensors_among(attributes_of(self._modules))
        self._final_tensors += [x for x in own if id(x.tensor) not in before or self._may_hold(x.tensor)]

    def _may_hold(self, attribute: Tensor) -> bool:
        """Return whether an attribute may be held between the passes.

        If func's graph does not reach its graph, it may be the output of an earlier solve, and would keep that alive.
        """
        return attribute.grad_fn is None or id(attribute) in self._reached

    def guard(self, params: Sequence[Tensor], reached: Container[int]) -> None:
        """Guard the params with these ids that func reached, and every other tensor that it read and did not change."""
        changed = {id(x.tensor) for x in (*self._changed_buffers, *self._attributes) if x.changed()}
        used = [p for p in params if id(p) in reached]
        with self.lock:  # another thread's check_gradient assigns .data for a while
            self.guarded = GuardedTensors([*used, *(x for x in self.reads.found if id(x) not in changed)])

    def require_repeatable(self, repeats_first_call: Callable[[], bool]) -> None:
        """Raise UnsupportedCombination if a repeated call would not return what it returned in the solve.

        repeats_first_call repeats func's first call and compares the values.
        """
        if self._known_repeatable:
            return
        self.rng.require_repeatable()
        if self._changed_buffers:
            names = ", ".join(sorted({repr(x.name) for x in self._changed_buffers}))
            if is_capturing(self._device):
                raise UnsupportedCombination(
                    f"func changes buffers of its module ({names}), and while a CUDA stream is captured it cannot be "
                    'tested whether its value depends on them: call func.eval(), or use gradient="backprop"'
                )
            with self.reinstated():
                repeats = repeats_first_call()
            if not repeats:
                raise UnsupportedCombination(
                    f"func changes buffers of its module ({names}) and its value depends on them (spectral norm in "
                    "training mode does this): a call in the backward pass would not return what it returned in the "
                    'forward pass. Call func.eval(), or use gradient="backprop"'
                )
        self._known_repeatable = True

    def require_unchanged(self) -> None:
        """Raise FunctionChanged, with its name, if a value that func reads and that is not put back has changed."""
        with self.lock:  # another thread's check_gradient assigns .data for a while
            self.guarded.require_unmoved(self.name_of)
        for x in self.reach.watched:
            name = x.changed()
            if name is not None:
                raise FunctionChanged(
                    f"{name}, which func reads, has changed since the forward pass: the gradient would be that of "
                    "another function. Pass its value as a default argument of a function made for each solve, hold it "
                    'in a buffer or an attribute of func\'s module, or use gradient="backprop"'
                )

    @contextmanager
    def reinstated(self, stand_in: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
        """Reinstate the state of the solve, with the lock held, and restore the current state at the end.

        stand_in: makes the tensors to use in place of those with a history; their leaves if left out.
        """
        with self.lock:
            modes = [(module, module.training) for module, training in self._modes if module.training != training]
            values, held = self.values.changed(), all_held(self._final_tensors)
            if modes or values or self._changed_buffers or self.stand_ins.are_seen or not held:
                self.lock.mark_replaced()
            with (
                attributes_restored(self._modules),
                put_back(values),
                installed(self._final_tensors),
                self.stand_ins.installed(stand_in),
                values_restored(self._changed_buffers),
                self.rng.reinstated(),
                self._autocast_of_solve(),
                self._subclasses_of_solve(),
            ):
                for module, training in modes:
                    module.training = not training
                try:
                    yield
                finally:
                    for module, training in modes:
                        module.training = training

    def _subclasses_of_solve(self) -> AbstractContextManager[Any]:
        """Return a context in which operations go through subclasses of Tensor if they did so in the solve.

        A backward pass that is started with such a tensor, in torch.autograd.grad(loss, y0), turns that off.
        """
        if self._hears_subclasses and not subclasses_are_heard():
            return EnableTorchFunction()
        return nullcontext()

    def _autocast_of_solve(self) -> Any:
        """Return autocast as it was in the solve, without its cache.

        With the cache, many calls would share one cast weight, and autograd would sum their gradients in its low
        precision. If it is off here as it was there, the cache is left on for a func that turns autocast on itself:
        without it, the graph of a call would be another one than in the solve.
        """
        if not self._autocast and not autocast_is_on(self._device_type):
            return nullcontext()
        dtype, enabled = self.autocast_dtype, self._autocast
        return torch.autocast(self._device_type, dtype=dtype, enabled=enabled, cache_enabled=False)
