"""The same solve with every step halved, which shows how far a gradient is from that of the ODE."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from symplectic_adjoint.solve.grid import FREE, StepPlan
from symplectic_adjoint.solve.problem import Problem

ADVICE = (
    "The steps are too long for the gradient of the ODE. Step control sees the error of y alone: a term of func that "
    "is zero here, by its coefficient or in an equilibrium, does not move y, whatever the tolerance. Tighten rtol if "
    "there is none; else give max_step in options (or step_size), start away from zero, or use gradient=Continuous("
    "options={'norm': 'mixed'}), which also controls the error of the parameters' gradient."
)


def halved(plans: Sequence[StepPlan]) -> Iterator[StepPlan]:
    """Yield two steps in place of each; a step as short as the spacing of t remains."""
    for plan in plans:
        middle = plan.t + 0.5 * plan.h
        if middle in (plan.t, plan.t_end):
            yield plan
            continue
        yield StepPlan(plan.t, middle - plan.t, middle, FREE, plan.open_start, False)
        yield StepPlan(middle, plan.t_end - middle, plan.t_end, plan.pinned_to, False, plan.open_end)


def tolerance_of(problem: Problem, ys: Tensor, precision: float) -> float:
    """Return the relative error that step control allows y, but not less than rounding error; 0 on a fixed grid.

    atol is relative to y, or to 1 if y is less: y may be zero where its gradient is not.
    """
    control = problem.options.control
    if control is None:
        return 0.0
    rtol, atol = (float(x.amax() if isinstance(x, Tensor) else x) for x in (control.rtol, control.atol))
    size = float(ys.abs().amax()) if ys.numel() else 0.0
    return max(rtol + atol / max(size, 1.0), 100.0 * torch.finfo(ys.dtype).eps, precision)


def largest_change(tolerance: float, change_of_ys: float) -> float:
    """Return how much a gradient may change, relatively, if the steps are halved.

    tolerance: that of step control. change_of_ys: how much ys changes. A problem may amplify the error of a step, and
    that of y in its gradient: on orbits, oscillators, networks and the Lorenz attractor by less than 30 and 1,100.
    Where y has no error to amplify, the tolerance alone is the limit. A gradient that changes by more than its size is
    useless at any tolerance.
    """
    return min(1.0, 30.0 * tolerance + 3e3 * change_of_ys)
