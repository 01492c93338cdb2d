"""The random numbers that func draws."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import string_at
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.captured_calls import CapturedCall, refused_draw
from symplectic_adjoint.field.host_reads import is_capturing
from symplectic_adjoint.field.module_lock import lock_of_generators

_KNOWN_QUIET: WeakKeyDictionary[nn.Module, tuple[bool, ...]] = WeakKeyDictionary()
"""Opaque modules that drew nothing in a solve, with the training modes that they had."""


class ForwardRng:
    """The random number generators of one solve, which are in the same state at the start of every call of func.

    A func that draws new numbers in each call is not a function of t and y: step control fails on it and no call can
    be repeated. With one state per solve, dropout masks and noise are fixed within a solve and differ between solves.

    While a CUDA stream is captured no generator is touched, and a func that draws is refused. opaque: func's compiled
    and scripted modules, whose operations are not seen; a solve before the capture shows whether they draw.
    """

    def __init__(self, device: torch.device, opaque: Sequence[nn.Module] = ()):
        self._opaque = opaque
        self._device = device
        self._cuda = device if device.type == "cuda" else None
        self._lock = lock_of_generators()
        self._before: tuple[Tensor, ...] = ()
        """The states before the first call, if func draws."""
        self._after: tuple[Tensor, ...] = ()
        """The states after the first call, if func draws."""
        self._unchanged: tuple[int, ...] | None = None
        """The fingerprint of the states, if the first call did not change them."""

    @property
    def draws_nothing(self) -> bool:
        """Whether func has been called and drew nothing."""
        return self._unchanged is not None

    def __call__(self, func: Callable[..., Tensor], t: Tensor, y: Tensor) -> Tensor:
        """Return func(t, y), with the same numbers drawn as in the first call."""
        if self.draws_nothing:
            return func(t, y)
        if is_capturing(self._device):
            self._require_undrawn()
            if self._opaque:
                return func(t, y)
            with CapturedCall():
                return func(t, y)
        with self._lock:
            if self._before:
                self._set(self._before)
                return func(t, y)
            return self._first_call(func, t, y)

    def _first_call(self, func: Callable[..., Tensor], t: Tensor, y: Tensor) -> Tensor:
        before = self._get()
        k = func(t, y)
        after = self._get()
        if all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            self._unchanged = _fingerprint(after)
            _KNOWN_QUIET.update((m, _modes(m)) for m in self._opaque)
        else:
            self._before, self._after = before, after
        return k

    def finish(self) -> None:
        """Leave the generators as one call of func would, so that the next solve draws other numbers."""
        if self._before and not is_capturing(self._device):
            with self._lock:  # another thread may be about to draw
                self._set(self._after)

    def require_repeatable(self) -> None:
        """Raise UnsupportedCombination if func began to draw after its first call, which cannot be repeated.

        Beside other threads, which may have drawn instead, nothing is known: recomputed values tell.
        """
        if threading.active_count() > 1 or self._unchanged is None:
            return
        if self._unchanged != _fingerprint(self._get()):
            raise UnsupportedCombination(
                "random numbers were drawn during the solve, though not in func's first call: a call in the backward "
                'pass would draw different ones. Draw the noise before the solve, or use gradient="backprop"'
            )

    @contextmanager
    def reinstated(self) -> Iterator[None]:
        """Let calls draw what the solve drew, and restore the caller's generators at the end."""
        if is_capturing(self._device):
            self._require_undrawn()
        now = self._get() if self._before else ()
        try:
            yield
        finally:
            if now:
                with self._lock:
                    self._set(now)

    def _require_undrawn(self) -> None:
        """Raise UnsupportedCombination if func drew in a forward pass before the capture, or might without a trace."""
        if self._before:
            raise refused_draw()
        if any(_KNOWN_QUIET.get(m) != _modes(m) for m in self._opaque):
            raise UnsupportedCombination(
                "func is compiled or scripted, so that whether it draws random numbers is known only from a solve "
                "outside of the capture: solve once before it, with the module in the same training mode"
            )

    def _get(self) -> tuple[Tensor, ...]:
        state = torch.get_rng_state()
        return (state,) if self._cuda is None else (state, torch.cuda.get_rng_state(self._cuda))

    def _set(self, states: tuple[Tensor, ...]) -> None:
        torch.set_rng_state(states[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(states[1], self._cuda)


def _modes(module: nn.Module) -> tuple[bool, ...]:
    return tuple(m.training for m in module.modules() if hasattr(m, "training"))


def _fingerprint(states: tuple[Tensor, ...]) -> tuple[int, ...]:
    """Return a hash of each state: the states are kilobytes, and are kept only if func draws."""
    return tuple(hash(string_at(state.data_ptr(), state.numel())) for state in states)  # states are bytes on the host
