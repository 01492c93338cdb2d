"""The time loop. It knows nothing of gradients: a recorder decides what is kept of a step."""

from typing import Protocol

from torch import Tensor

from symplectic_adjoint.clock import Clock
from symplectic_adjoint.grid import StepPlan
from symplectic_adjoint.outputs import Outputs
from symplectic_adjoint.step import RightHandSide, Step
from symplectic_adjoint.tableau import ButcherTableau
from symplectic_adjoint.timeline import Timeline


class Recorder(Protocol):
    def accept(self, plan: StepPlan, step: Step) -> None:
        """A step was accepted. Its tensors may be kept; they are not changed afterwards."""
        ...


class Forget:
    """Keeps nothing."""

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan, step


def integrate(
    f: RightHandSide,
    tableau: ButcherTableau,
    clock: Clock,
    y0: Tensor,
    outputs: Outputs,
    recorder: Recorder,
    timeline: Timeline,
) -> tuple[list[StepPlan], Tensor]:
    """Takes every step that the clock proposes; returns the accepted ones and the last state."""
    plans: list[StepPlan] = []
    y, k1 = y0, clock.start(f, timeline.start, y0)
    while (plan := clock.propose()) is not None:
        t, h, t_end = timeline.of(plan)
        step = Step(f, tableau, t, h, t_end, y, () if k1 is None else (k1,))
        if not clock.accepts(plan, step):
            k1 = step.ks[0]  # a retry starts from the same place
            continue
        outputs.collect(len(plans), plan, step, timeline)
        y = step.end()
        recorder.accept(plan, step)
        timeline.advance(plan)
        plans.append(plan)
        k1 = step.end_slope()
    return plans, y
