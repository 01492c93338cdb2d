"""Functions of the user's that are called around every step, found by name on func as torchdiffeq does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.field import Time
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.step_sequences import StepSequence
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

    def wrap(self, sequence: StepSequence) -> StepSequence:
        """The sequence, announcing its steps."""
        return _StepsWithCallbacks(sequence, self) if self.names else sequence

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


class _StepsWithCallbacks:
    def __init__(self, sequence: StepSequence, callbacks: Callbacks):
        self._sequence, self._callbacks = sequence, callbacks

    @property
    def rejected(self) -> int:
        return self._sequence.rejected

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        return self._sequence.start(f, t0, y0)

    def propose(self) -> StepPlan | None:
        return self._sequence.propose()

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        self._callbacks.before(step)  # stages are evaluated when they are asked for: none has been yet
        accepted = self._sequence.accepts(plan, step)
        self._callbacks.after(step, accepted=accepted)
        return accepted

    def worst_component(self, step: Step) -> int | None:
        return self._sequence.worst_component(step)
