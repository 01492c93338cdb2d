"""What is kept of each step for the way back."""

from torch import Tensor

from symplectic_adjoint.grid import StepPlan
from symplectic_adjoint.step import Step


class StepStarts:
    """The state at the start of every step but the first, which is y0: N - 1 states."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self._first = True

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan
        if not self._first:
            self.kept.append(step.y)
        self._first = False


class StartsAndLastStages(StepStarts):
    """Step starts, and the stages k_1 .. k_s of the last step, which the way back needs first."""

    def __init__(self, t_end: float):
        super().__init__()
        self._t_end = t_end

    def accept(self, plan: StepPlan, step: Step) -> None:
        super().accept(plan, step)
        if plan.t_end == self._t_end:
            self.kept.extend(step.ks[: step.tableau.stages])


class Stages(StartsAndLastStages):
    """Step starts and k_1 .. k_{s-1} of every step (k_s too of the last): N s states, in the order of the steps."""

    def accept(self, plan: StepPlan, step: Step) -> None:
        super().accept(plan, step)
        if plan.t_end != self._t_end:
            self.kept.extend(step.ks[: step.tableau.stages - 1])
