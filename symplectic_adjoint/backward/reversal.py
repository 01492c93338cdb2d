"""Shared by the gradients that keep no states but reconstruct them by reversing the steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import NoCheckpoints
from symplectic_adjoint.backward.state_sketch import Marks, StateSketch
from symplectic_adjoint.backward.strategy import BackwardPass
from symplectic_adjoint.errors import ReversalError
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import OutputCotangent, StepCotangents, inner


class FinalPair(NoCheckpoints):
    """Keeps y at the end of the last step, and the companion state (v or z) from which that step is reversed."""

    def __init__(self, companion_of: Callable[[Any], Tensor]):
        self._companion_of = companion_of
        self._first_value: StateSketch | None = None

    def accept(self, plan: StepPlan, step: Step) -> None:
        if self._first_value is None:
            self._first_value = StateSketch(step.ks[0])

    def finish(self, step: Step) -> None:
        last_value = StateSketch(step.ks[step.tableau.stages - 1])
        self.marks = Marks(StateSketch(step.end()), self._first_value, last_value)
        self.kept = [step.end(), self._companion_of(step)]


def pull_back_end_outputs(
    given: BackwardPass, n: int, y: Tensor, lam: Tensor, outputs: Sequence[OutputCotangent]
) -> tuple[Tensor, StepCotangents]:
    """Pull back the outputs at the free end y of step n, which is that of an event.

    Return lam with their cotangents added, and the StepCotangents of the step to which the rest is added.
    """
    bars = StepCotangents([output.mu for output in outputs])
    for output in outputs:
        lam = lam + output.mu
    if outputs and given.t is not None:
        plan = given.trajectory.plans[n]
        time = given.problem.step(given.field, plan, y).time_of_end()
        slope = given.field(time, y)
        for output in outputs:
            bar = inner(output.mu, slope)
            bars.t_bar, bars.h_bar = bars.t_bar - bar, bars.h_bar - bar
            bars.output_bars[output.j] = bar
    return lam, bars


def check_reversal(given: BackwardPass, y: Tensor) -> None:
    """Raise ReversalError if y, obtained by reversing every step, agrees with y0 in less than half of the digits.

    Raises FunctionChanged instead if that is the reason.
    """
    if y.numel() == 0:
        return
    off = (y - given.y0).abs().amax() / given.y0.abs().amax().clamp_min(torch.finfo(y.dtype).tiny)
    allowed = torch.finfo(y.dtype).eps ** 0.5
    if not off.item() <= allowed:
        if given.values is not None:
            given.values.settle()
        raise ReversalError(
            f"reversing the {len(given.trajectory.plans)} steps of gradient={given.problem.gradient_name!r} gave y0 "
            f"with a relative error of {off.item():.1e}, and the gradient would be as inaccurate (up to {allowed:.1e} "
            "is accepted): use larger steps, a state of higher precision, a coupling or an eta closer to 1, or "
            'gradient="symplectic"'
        )
