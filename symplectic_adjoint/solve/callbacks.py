"""User callbacks before and after every step, looked up by name on func as in torchdiffeq."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time, number
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.step_sequences import StepSequence
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")
Callback = Callable[[Tensor, Any, Tensor], Any]


class Callbacks:
    """The callbacks of func.

    callback_step(t0, y0, dt) is called before each attempted step, then callback_accept_step or callback_reject_step
    with the same arguments. suffix: "_adjoint" for the callbacks of the backward solve. Raises TypeError if one of
    them is not callable.
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
        """Return the sequence, with its steps reported to the callbacks."""
        return _StepsWithCallbacks(sequence, self) if self.names else sequence

    def before(self, step: Step) -> None:
        """Report an attempt."""
        self._call(self._step, step)

    def after(self, step: Step, *, accepted: bool) -> None:
        """Report the outcome of an attempt."""
        self._call(self._accept if accepted else self._reject, step)

    def _call(self, callback: Callback | None, step: Step) -> None:
        if callback is None:
            return
        real = {"dtype": torch.float64, "device": step.y.device}
        t, h = (torch.scalar_tensor(number(x), **real) for x in (step.t, step.h))
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
        self._callbacks.before(step)  # no stage has been evaluated yet: stages are lazy
        accepted = self._sequence.accepts(plan, step)
        self._callbacks.after(step, accepted=accepted)
        return accepted

    def worst_component(self, step: Step) -> int | None:
        return self._sequence.worst_component(step)
