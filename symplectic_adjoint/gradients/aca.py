"""Adaptive checkpoint adjoint: one step on the graph at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.gradients.base import BackwardPass, Gradients
from symplectic_adjoint.gradients.checkpoints import StepStarts
from symplectic_adjoint.gradients.sweep import AddParams, sweep
from symplectic_adjoint.problem import Problem
from symplectic_adjoint.step import Step
from symplectic_adjoint.timeline import exactly
from symplectic_adjoint.transpose import OutputCotangent, StepCotangents


@dataclass(frozen=True)
class Aca:
    """Keeps the state at every step; each step is taken again on the graph and backpropagated.

    Memory N D + s A, s f calls a step on the way back. Zhuang et al. (ICML 2020, arXiv:2006.02493), without the
    step size search and the repeated step of the published code.
    """

    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def keeper(self, problem: Problem) -> StepStarts:
        del problem
        return StepStarts()

    def backward(self, given: BackwardPass) -> Gradients:
        starts = given.take_starts()

        def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], add_params: AddParams) -> StepCotangents:
            return _backpropagate_step(given, n, starts.pop(), lam, outputs, add_params)

        return sweep(given, pull_back)


def _backpropagate_step(
    given: BackwardPass,
    n: int,
    start: Tensor,
    lam: Tensor,
    outputs: Sequence[OutputCotangent],
    add_params: AddParams,
) -> StepCotangents:
    f, plan, with_time = given.field, given.trajectory.plans[n], given.t is not None
    calls = f.f_calls
    with torch.enable_grad():
        y = start.detach().requires_grad_()
        times: list[Tensor] = []
        t, h, t_end, sigmas = plan.t, plan.h, plan.t_end, [o.sigma for o in outputs]
        if with_time:
            numbers = (plan.t, plan.h, *(given.problem.times[o.j] for o in outputs))
            times = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
            t, h, *t_outs = times
            t_end = exactly(plan.t_end, t + h)
            sigmas = [(t_out - t) / h for t_out in t_outs]
        step = Step(f, given.problem.tableau, t, h, t_end, y, open_ends=(plan.open_start, plan.open_end))
        reached = [step.end(), *(step.output(sigma) for sigma in sigmas)]
    f.vjps += f.f_calls - calls
    bars = f.pull(reached, (y, *times, *f.params), [lam, *(o.mu for o in outputs)])
    add_params(bars[1 + len(times) :])
    y_bar = bars[0]
    assert y_bar is not None  # y+ = y + ...
    if not with_time:
        return StepCotangents(y_bar)
    t_bar, h_bar, *out_bars = (0.0 if bar is None else bar for bar in bars[1 : 1 + len(times)])
    return StepCotangents(y_bar, t_bar, h_bar, {o.j: bar for o, bar in zip(outputs, out_bars, strict=True)})
