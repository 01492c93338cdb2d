"""What func's value depends on besides t and y, kept so that a call on the way back is the call of the way there.

Autocast, training modes, random numbers and buffers belong to the process or the module, not to the arguments.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from symplectic_adjoint.errors import UnsupportedCombination


class Surroundings:
    """Those of one solve, from its first f call on. module is func's, None where func is a plain function."""

    def __init__(self, module: nn.Module | None, device: torch.device):
        self.draws = Draws(device)
        self.changed: list[Tensor] = []
        """The module's buffers that func changes when it is called."""
        self._buffers = [own for m in module.modules() if (own := _own_buffers(m))] if module is not None else []
        self._versions = [[b._version for b in own] for own in self._buffers]
        self._modes = [(m, m.training) for m in module.modules()] if module is not None else []
        self._kind = device.type
        self._autocast = torch.amp.is_autocast_available(self._kind) and torch.is_autocast_enabled(self._kind)
        self._autocast_dtype = torch.get_autocast_dtype(self._kind) if self._autocast else None

    @property
    def watches(self) -> bool:
        """Whether there is anything that func could change."""
        return bool(self._buffers)

    @property
    def constant(self) -> list[Tensor]:
        """The buffers that func only reads."""
        changed = {id(b) for b in self.changed}
        return [b for own in self._buffers for b in own if id(b) not in changed]

    def settle(self, agrees: Callable[[], bool]) -> None:
        """After the solve: raises UnsupportedCombination where a call would not give again what it gave before.

        agrees calls func once more where it was called first and compares.
        """
        self.draws.settle()
        pairs = zip(self._buffers, self._versions, strict=True)
        self.changed = [b for own, versions in pairs if [b._version for b in own] != versions for b in own]
        if not self.changed:
            return
        with restored(self.changed):
            same = agrees()
        if not same:
            shapes = ", ".join(str(tuple(b.shape)) for b in self.changed)
            raise UnsupportedCombination(
                f"func changes buffers of its module (shapes {shapes}) and its value depends on them (spectral norm in "
                "training mode does this): a call on the way back would not give what it gave on the way there. Call "
                'func.eval(), or take gradient="backprop"'
            )

    @contextmanager
    def again(self) -> Iterator[None]:
        """As they were for the solve, whatever they are now; all as found at the end."""
        modes = [(module, module.training) for module, training in self._modes if module.training != training]
        autocast = torch.amp.is_autocast_available(self._kind)
        with restored(self.changed), self.draws.again():
            for module, training in modes:
                module.training = not training
            try:
                if not autocast:
                    yield
                else:
                    with torch.autocast(self._kind, dtype=self._autocast_dtype, enabled=self._autocast):
                        yield
            finally:
                for module, training in modes:
                    module.training = training


def _own_buffers(module: nn.Module) -> list[Tensor]:
    """A module's buffers without its children's. They change together: BatchNorm hides some changes from autograd."""
    return [b for b in module.buffers(recurse=False) if not b.is_inference()]


@contextmanager
def restored(buffers: list[Tensor]) -> Iterator[None]:
    """The buffers get back at the end what they hold now."""
    held = [b.clone() for b in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for b, value in zip(buffers, held, strict=True):
                b.copy_(value)


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
        self._mark = _fingerprint(self._get())
        if self._mark != _fingerprint(start):
            self._start = start
        return k

    def settle(self) -> None:
        """Raises UnsupportedCombination where func began to draw after its first call, which cannot be repeated."""
        if not self._start and self._mark is not None and self._mark != _fingerprint(self._get()):
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
