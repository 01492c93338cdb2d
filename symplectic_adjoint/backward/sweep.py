"""The reverse sweep over recorded steps. Each strategy defines how a single step is pulled back."""

from collections.abc import Callable

import torch
from torch import Tensor

from symplectic_adjoint.backward.parameter_sums import ParameterSums, parameter_sums
from symplectic_adjoint.backward.running_sum import SumInPlace, running_sum
from symplectic_adjoint.backward.strategy import BackwardPass, Gradients
from symplectic_adjoint.field.linearization import Pull
from symplectic_adjoint.solve.timeline import TimeCotangents
from symplectic_adjoint.steps.output_cotangents import OutputCotangents
from symplectic_adjoint.steps.transpose import StepCotangents

PullBack = Callable[[int, Tensor, OutputCotangents, Pull], StepCotangents]
"""(step number, lam, dense outputs in the step, pull that sums dL/dtheta) -> cotangents of the step's inputs."""


def sweep(given: BackwardPass, pull_back: PullBack) -> Gradients:
    """Return the gradient by pulling lam back from the end of the last step to y0, adding the outputs' cotangents."""
    with parameter_sums(given.field, given.grad_ys, given.problem.accumulate) as params:
        y0_bar, t_bar = _sweep_steps(given, pull_back, params)
    return Gradients(y0_bar, t_bar, params.total())


def _sweep_steps(
    given: BackwardPass, pull_back: PullBack, params: ParameterSums
) -> tuple[Tensor | None, Tensor | None]:
    plans, grad_ys = given.trajectory.plans, given.grad_ys
    inside = given.trajectory.dense_outputs()
    output_step, sigmas = given.trajectory.output_step, given.trajectory.output_sigma
    time_bars = None if given.t is None else TimeCotangents(given.t)
    lam = running_sum(given.problem.accumulate) if params.lam is None else SumInPlace(params.lam)
    for n in reversed(range(len(plans))):
        plan = plans[n]
        if plan.pinned_to >= 0 and output_step[plan.pinned_to] == n:
            lam.add(grad_ys[plan.pinned_to])
        if lam.value is None:
            lam.add(torch.zeros_like(grad_ys[0]))
        outputs = OutputCotangents(inside.get(n, ()), sigmas, grad_ys)
        assert lam.value is not None
        bars = pull_back(n, lam.value, outputs, params.pull)
        lam.add_all(bars.y_terms)
        if time_bars is not None:
            time_bars.add_step(plan, bars.t_bar, bars.h_bar)
            for j, bar in bars.output_bars.items():
                time_bars.add_output(j, bar)
    lam.add(grad_ys[0])
    return lam.total(), None if time_bars is None else time_bars.total()
