"""The reverse sweep over recorded steps. How one step is pulled back is the strategy's own business."""

from collections.abc import Callable, Sequence

from torch import Tensor

from symplectic_adjoint.gradients.accumulator import Accumulator
from symplectic_adjoint.gradients.base import BackwardPass, Gradients
from symplectic_adjoint.timeline import TimeCotangents
from symplectic_adjoint.transpose import OutputCotangent, StepCotangents

AddParams = Callable[[Sequence[Tensor | None]], None]
PullBack = Callable[[int, Tensor, Sequence[OutputCotangent], AddParams], StepCotangents]
"""(step number, lam, dense outputs in the step, where dL/dtheta goes) -> cotangents of the step's start."""


def sweep(given: BackwardPass, pull_back: PullBack) -> Gradients:
    """lam from the last step's end to y0, taking in each output's cotangent where it was made."""
    plans, grad_ys = given.trajectory.plans, given.grad_ys
    inside = given.trajectory.dense_outputs()
    sigmas = given.trajectory.output_sigma
    params = Accumulator(len(given.field.params))
    time_bars = None if given.t is None else TimeCotangents(given.t)
    lam = grad_ys.new_zeros(grad_ys.shape[1:])
    for n in reversed(range(len(plans))):
        plan = plans[n]
        if plan.pinned_to >= 0 and given.trajectory.output_step[plan.pinned_to] == n:
            lam = lam + grad_ys[plan.pinned_to]
        outputs = [OutputCotangent(j, sigmas[j], grad_ys[j]) for j in inside.get(n, ())]
        bars = pull_back(n, lam, outputs, params.add)
        lam = bars.y_bar
        if time_bars is not None:
            time_bars.add_step(plan, bars.t_bar, bars.h_bar)
            for j, bar in bars.output_bars.items():
                time_bars.add_output(j, bar)
    return Gradients(lam + grad_ys[0], None if time_bars is None else time_bars.total(), params.total)
