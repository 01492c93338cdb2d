"""The random numbers that a right hand side draws."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import string_at

import torch
from torch import Tensor

from symplectic_adjoint.errors import UnsupportedCombination


class ForwardRng:
    """The random numbers that func draws: every call of a solve starts from the same state of the generators.

    A right hand side that draws anew at each call is not a function of t and y: no step size suits it and no call can
    be repeated. With one state a solve, dropout masks and noise are fixed within it and differ between solves.
    """

    def __init__(self, device: torch.device):
        self._cuda = device if device.type == "cuda" else None
        self._start: tuple[Tensor, ...] = ()
        self._after: tuple[Tensor, ...] = ()
        self._mark: tuple[int, ...] | None = None

    @property
    def none(self) -> bool:
        """Whether func is known to draw nothing."""
        return self._mark is not None

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
            self._start, self._after = start, after
        return k

    def finish(self) -> None:
        """At the end of a solve: the generators are where one call leaves them, and the next solve draws others."""
        if self._start:
            self._set(self._after)

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
    """A number that stands for each state: those are kilobytes, kept only where func draws."""
    return tuple(hash(string_at(state.data_ptr(), state.numel())) for state in states)  # states are bytes on the host
