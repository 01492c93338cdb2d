"""The end of a solve where the caller's function stop(t, y) asks for it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.step_sequences import StepSequence
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


class StoppableSteps:
    """The steps of another sequence, until stop(t, y), called at the end of every accepted step, returns True.

    stopped_y: the state at the end of the step after which it did, None if it never did.
    """

    def __init__(self, sequence: StepSequence, stop: Callable[[Tensor, Any], Any], unpack: Callable[[Tensor], Any]):
        self.stopped_y: Tensor | None = None
        self._sequence, self._stop, self._unpack = sequence, stop, unpack

    @property
    def rejected(self) -> int:
        return self._sequence.rejected

    def start(self, f: RightHandSide, t0: Time, y0: Tensor) -> Tensor | None:
        return self._sequence.start(f, t0, y0)

    def propose(self) -> StepPlan | None:
        return None if self.stopped_y is not None else self._sequence.propose()

    def accepts(self, plan: StepPlan, step: Step) -> bool:
        accepted = self._sequence.accepts(plan, step)
        if accepted and self._asks(plan, step):
            self.stopped_y = step.end().detach()
        return accepted

    def worst_component(self, step: Step) -> int | None:
        return self._sequence.worst_component(step)

    def _asks(self, plan: StepPlan, step: Step) -> bool:
        t = torch.scalar_tensor(plan.t_end, dtype=torch.float64, device=step.y.device)
        y = step.end().detach()
        with torch.no_grad():
            answer = self._stop(t, self._unpack(y))
        if answer is None:
            raise TypeError("option 'stop' must be a function of (t, y) that returns True or False, got None from it")
        return bool(answer)
