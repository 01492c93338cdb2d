"""The reverse sweep over recorded steps. How one step is pulled back is the strategy's own business."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from symplectic_adjoint.backward.parameter_sums import parameter_sums
from symplectic_adjoint.backward.running_sum import running_sum
from symplectic_adjoint.backward.strategy import BackwardPass, Gradients
from symplectic_adjoint.field.linearization import Pull
from symplectic_adjoint.solve.timeline import TimeCotangents
from symplectic_adjoint.steps.transpose import OutputCotangent, StepCotangents

PullBack = Callable[[int, Tensor, Sequence[OutputCotangent], Pull], StepCotangents]
"""(step number, lam, dense outputs in the step, what takes dL/dtheta) -> cotangents of the step's start."""


def sweep(given: BackwardPass, pull_back: PullBack) -> Gradients:
    """lam from the last step's end to y0, taking in each output's cotangent where it was made."""
    with parameter_sums(given.field, given.grad_ys, given.problem.accumulate) as params:
        y0_bar, t_bar = _swept(given, pull_back, params.pull)
    return Gradients(y0_bar, t_bar, params.total())


def _swept(given: BackwardPass, pull_back: PullBack, pull: Pull) -> tuple[Tensor | None, Tensor | None]:
    plans, grad_ys = given.trajectory.plans, given.grad_ys
    inside = given.trajectory.dense_outputs()
    output_step, sigmas = given.trajectory.output_step, given.trajectory.output_sigma
    time_bars = None if given.t is None else TimeCotangents(given.t)
    lam = running_sum(given.problem.accumulate)
    for n in reversed(range(len(plans))):
        plan = plans[n]
        if plan.pinned_to >= 0 and output_step[plan.pinned_to] == n:
            lam.add(grad_ys[plan.pinned_to])
        if lam.value is None:
            lam.add(torch.zeros_like(grad_ys[0]))
        outputs = [OutputCotangent(j, sigmas[j], grad_ys[j]) for j in inside.get(n, ())]
        assert lam.value is not None
        bars = pull_back(n, lam.value, outputs, pull)
        while bars.y_terms:  # each as large as a state
            lam.add(bars.y_terms.pop())
        if time_bars is not None:
            time_bars.add_step(plan, bars.t_bar, bars.h_bar)
            for j, bar in bars.output_bars.items():
                time_bars.add_output(j, bar)
    lam.add(grad_ys[0])
    return lam.total(), None if time_bars is None else time_bars.total()
