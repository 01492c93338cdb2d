"""Functions of the user's that are called around every step, found by name on func as torchdiffeq does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.step_sizes import Clock
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")
Callback = Callable[[Tensor, Any, Tensor], Any]


class Callbacks:
    """callback_step(t0, y0, dt) before a step is tried, one of the other two when it is accepted or rejected.

    suffix: "_adjoint" for those of a backward solve.
    """

    def __init__(self, func: Any, unpack: Callable[[Tensor], Any], suffix: str = ""):
        found = [getattr(func, name + suffix, None) for name in NAMES]
        for name, callback in zip(NAMES, found, strict=True):
            if callback is not None and not callable(callback):
                raise TypeError(f"func.{name}{suffix} must be a function of (t0, y0, dt), got {callback!r}")
        self.names = [name + suffix for name, callback in zip(NAMES, found, strict=True) if callback is not None]
        self._step, self._accept, self._reject = found
        self._unpack = unpack

    def around(self, clock: Clock) -> Clock:
        """The clock, announcing its steps."""
        return _Announcing(clock, self) if self.names else clock

    def before(self, step: Step) -> None:
        self._call(self._step, step)

    def after(self, step: Step, *, accepted: bool) -> None:
        self._call(self._accept if accepted else self._reject, step)

    def _call(self, callback: Callback | None, step: Step) -> None:
        if callback is None:
            return
        real = {"dtype": torch.float64, "device": step.y.device}
        t, h = (torch.as_tensor(x, **real).detach() for x in (step.t, step.h))
        with torch.no_grad():
            callback(t, self._unpack(step.y.detach()), h)


class _Announcing:
    def __init__(self, clock: Clock, callbacks: Callbacks):
        self._clock, self._callbacks = clock, callbacks

    @property
    def rejected(self) -> int:
        return self._clock.rejected

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        return self._clock.start(f, t0, y0)

    def propose(self) -> StepPlan | None:
        return self._clock.propose()

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        self._callbacks.before(step)  # stages are evaluated when they are asked for: none has been yet
        accepted = self._clock.accepts(plan, step)
        self._callbacks.after(step, accepted=accepted)
        return accepted

    def worst(self, step: Step) -> int | None:
        return self._clock.worst(step)
