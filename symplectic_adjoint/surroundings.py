"""What func's value depends on besides t and y, kept so that a call on the way back is the call of the way there.

Autocast, training modes, random numbers and buffers belong to the process or the module, not to the arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symplectic_adjoint.errors import UnsupportedCombination


class Surroundings:
    """Those of one solve, from its first f call on. module is func's, None where func is a plain function."""

    def __init__(self, module: nn.Module | None, device: torch.device):
        self.draws = Draws(device)
        modules = list(module.modules()) if module is not None else []
        self._owners = [own for m in modules if (own := Buffer.all_of(m))]
        self._changed: list[Buffer] = []
        """Those that func changes when it is called."""
        self._modes = [(m, m.training) for m in modules]
        self._kind = device.type
        self._autocast = torch.amp.is_autocast_available(self._kind) and torch.is_autocast_enabled(self._kind)
        self._autocast_dtype = torch.get_autocast_dtype(self._kind) if self._autocast else None

    @property
    def watches(self) -> bool:
        """Whether there is anything that func could change."""
        return bool(self._owners)

    @property
    def constant(self) -> list[Tensor]:
        """The buffers that func only reads."""
        changed = {id(b) for b in self._changed}
        buffers = [b for own in self._owners for b in own if id(b) not in changed]
        return [b.tensor for b in buffers if b.tensor is not None and b.version is not None]

    def settle(self, agrees: Callable[[], bool]) -> None:
        """After the solve: raises UnsupportedCombination where a call would not give again what it gave before.

        agrees calls func once more where it was called first and compares.
        """
        self.draws.settle()
        # A module's buffers change together: BatchNorm hides some changes from autograd.
        self._changed = [b for own in self._owners if any(x.changed() for x in own) for b in own]
        if not self._changed:
            return
        with restored(self._changed):
            same = agrees()
        if not same:
            names = ", ".join(sorted({repr(b.name) for b in self._changed}))
            raise UnsupportedCombination(
                f"func changes buffers of its module ({names}) and its value depends on them (spectral norm in "
                "training mode does this): a call on the way back would not give what it gave on the way there. Call "
                'func.eval(), or take gradient="backprop"'
            )

    @contextmanager
    def again(self) -> Iterator[None]:
        """As they were for the solve, whatever they are now; all as found at the end."""
        modes = [(module, module.training) for module, training in self._modes if module.training != training]
        autocast = torch.amp.is_autocast_available(self._kind)
        with restored(self._changed), self.draws.again():
            for module, training in modes:
                module.training = not training
            try:
                if not autocast:
                    yield
                else:
                    # Without its cache, which would hand one cast weight to many calls: their gradients would be
                    # summed in its low precision.
                    dtype, enabled = self._autocast_dtype, self._autocast
                    with torch.autocast(self._kind, dtype=dtype, enabled=enabled, cache_enabled=False):
                        yield
            finally:
                for module, training in modes:
                    module.training = training


@dataclass(frozen=True)
class Buffer:
    """A buffer of a module, by name, as it is before a solve."""

    module: nn.Module
    name: str
    tensor: Tensor | None
    version: int | None

    @staticmethod
    def all_of(module: nn.Module) -> list["Buffer"]:
        """A module's own, without its children's."""
        return [Buffer(module, name, x, _version(x)) for name, x in module._buffers.items()]

    def changed(self) -> bool:
        """Whether it was written into, or is another tensor now."""
        now = self.module._buffers.get(self.name)
        return now is not self.tensor or _version(now) != self.version


def _version(x: Tensor | None) -> int | None:
    return None if x is None or x.is_inference() else x._version


@contextmanager
def restored(buffers: Sequence[Buffer]) -> Iterator[None]:
    """The buffers are at the end what they are now."""
    tensors = [b.module._buffers[b.name] for b in buffers]
    values = [None if x is None else x.clone() for x in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for b, x, value in zip(buffers, tensors, values, strict=True):
                b.module._buffers[b.name] = x
                if x is not None and value is not None:
                    x.copy_(value)


class Draws:
    """The random numbers that func draws: every call of a solve starts from the same state of the generators.

    A right hand side that draws anew at each call is not a function of t and y: no step size suits it and no call can
    be repeated. With one state a solve, dropout masks and noise are fixed within it and differ between solves.
    """

    def __init__(self, device: torch.device):
        self._cuda = device if device.type == "cuda" else None
        self._start: tuple[Tensor, ...] = ()
        self._mark: tuple[int, ...] | None = None

    def __call__(self, func: Callable[..., Tensor], t: Tensor, y: Tensor) -> Tensor:
        """func(t, y), drawing what the first call drew."""
        if self._start:
            self._set(self._start)
        elif self._mark is None:
            return self._first(func, t, y)
        return func(t, y)

    def _first(self, func: Callable[..., Tensor], t: Tensor, y: Tensor) -> Tensor:
        start = self._get()
        k = func(t, y)
        after = self._get()
        if all(torch.equal(a, b) for a, b in zip(start, after, strict=True)):
            self._mark = _fingerprint(after)
        else:
            self._start = start
        return k

    def settle(self) -> None:
        """Raises UnsupportedCombination where func began to draw after its first call, which cannot be repeated."""
        if self._mark is not None and self._mark != _fingerprint(self._get()):
            raise UnsupportedCombination(
                "random numbers were drawn during the solve, though not in func's first call: a call on the way back "
                'would draw others. Draw the noise before the solve, or take gradient="backprop"'
            )

    @contextmanager
    def again(self) -> Iterator[None]:
        """Calls inside draw what the solve drew; the caller's generators go on as if there had been none."""
        now = self._get() if self._start else ()
        try:
            yield
        finally:
            if now:
                self._set(now)

    def _get(self) -> tuple[Tensor, ...]:
        state = torch.get_rng_state()
        return (state,) if self._cuda is None else (state, torch.cuda.get_rng_state(self._cuda))

    def _set(self, states: tuple[Tensor, ...]) -> None:
        torch.set_rng_state(states[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(states[1], self._cuda)


def _fingerprint(states: tuple[Tensor, ...]) -> tuple[int, ...]:
    """A few numbers that stand for the states: those themselves are kilobytes, kept only where func draws.

    Words are weighed by their place: a generator moves one counter up and another one down.
    """
    words = [state.view(torch.int64) for state in states]
    return tuple(int((w * torch.arange(1, len(w) + 1)).sum()) for w in words)
