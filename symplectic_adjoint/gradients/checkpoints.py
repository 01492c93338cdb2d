"""What is kept of each step for the way back."""

from collections.abc import Sequence

from torch import Tensor

from symplectic_adjoint.grid import StepPlan
from symplectic_adjoint.step import Step


class StepStarts:
    """The state at the start of every step but the first, which is y0: N - 1 states."""

    once: Sequence[Tensor] = ()

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self._first = True

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan
        if not self._first:
            self.kept.append(step.y)
        self._first = False

    def finish(self, step: Step) -> None:
        del step


class StartsAndLastStages(StepStarts):
    """Step starts; and once, for they are needed first, the stages k_1 .. k_s of the last step."""

    def finish(self, step: Step) -> None:
        self.once = step.ks[: step.tableau.stages]


class Stages(StepStarts):
    """Step starts and k_1 .. k_{s-1} of every step (k_s too of the last): N s states, in the order of the steps."""

    def accept(self, plan: StepPlan, step: Step) -> None:
        super().accept(plan, step)
        self.kept.extend(step.ks[: step.tableau.stages - 1])

    def finish(self, step: Step) -> None:
        s = step.tableau.stages
        self.kept.extend(step.ks[s - 1 : s])
