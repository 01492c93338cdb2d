"""What ways back share that undo the steps, from the end, instead of keeping anything of each."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import Nothing
from symplectic_adjoint.backward.strategy import BackwardPass
from symplectic_adjoint.errors import ReversalError
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import OutputCotangent, StepCotangents, inner


class LastPair(Nothing):
    """y at the end of the last step, and what else that step is undone from."""

    def __init__(self, beside: Callable[[Any], Tensor]):
        self._beside = beside

    def finish(self, step: Step) -> None:
        self.kept = [step.end(), self._beside(step)]


def landed(
    given: BackwardPass, n: int, y: Tensor, lam: Tensor, outputs: Sequence[OutputCotangent]
) -> tuple[Tensor, StepCotangents]:
    """lam with the outputs on the free end y of step n, an event's; and what these add to the step's cotangents."""
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
    """Raise ReversalError if y, which is y0 found by reversing every step, is off by half of the digits or more."""
    if y.numel() == 0:
        return
    off = (y - given.y0).abs().amax() / given.y0.abs().amax().clamp_min(torch.finfo(y.dtype).tiny)
    allowed = torch.finfo(y.dtype).eps ** 0.5
    if not off.item() <= allowed:
        raise ReversalError(
            f"undoing the {len(given.trajectory.plans)} steps of gradient={given.problem.gradient_name!r} led back to "
            f"y0 with an error of {off.item():.1e} of its size, and the gradient would be as far off (up to "
            f"{allowed:.1e} passes): take larger steps, a state of higher precision, a coupling or an eta nearer to 1, "
            'or gradient="symplectic"'
        )
