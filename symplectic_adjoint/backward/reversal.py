"""Shared by the gradients that keep no states but reconstruct them by reversing the steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import NoCheckpoints
from symplectic_adjoint.backward.recomputed_values import can_compare
from symplectic_adjoint.backward.recomputed_verdict import eps_of
from symplectic_adjoint.backward.state_sketch import Marks, StateSketch
from symplectic_adjoint.backward.strategy import BackwardPass
from symplectic_adjoint.errors import ReversalError
from symplectic_adjoint.field.precision import TF32_EPS
from symplectic_adjoint.field.transforms import batched
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.steps.output_cotangents import OutputCotangents
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import StepCotangents, inner

MOST_IN_HALF = 8.0
"""How many times less accurate than autograd's own a gradient in half precision may be: three bits of its eight or ten.

In a higher precision it may lose half of its digits.
"""
SAMPLES = 16
"""The least number of steps in which the growth of cotangents is measured, if there are as many."""


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
    given: BackwardPass, n: int, y: Tensor, lam: Tensor, outputs: OutputCotangents
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


class ReversalCheck:
    """Checks that the steps give a gradient as near as autograd's own, although they amplify rounding in two ways.

    What reversing rounds grows as in a solve backwards in time. The start that is found is compared with y0: it may be
    off by half of the digits, or by what f cannot tell apart if it computes in a lower precision.

    What f rounds grows in the second state of the pair, by 1 / |dy/dy_0| or so where the solution decays. Reversing
    repeats the same rounded values, so that the start does not show it, but ys and the gradient are wrong. The
    cotangents show it, since the transposed steps amplify as much. An error eps |y| in what a step adds to a state
    changes the loss by at most

        eps sum_n h_n sum_j (|a_j| + |b_j|) |y_j| ,    where a and b are the cotangents of y and of the second state,

    and the same error in steps of y alone, whose cotangent is a + b, by eps sum_n h_n sum_j |a_j + b_j| |y_j|. The
    ratio says how much less accurate the gradient is than autograd's own through ordinary steps. (In 700 random solves
    in half precision the ratio of the errors was within a factor of three of it in nearly all.) It is taken for each
    part of the state, since a large one would hide the others.
    """

    def __init__(self, given: BackwardPass, end: Tensor):
        plans = given.trajectory.plans
        self._given, self._layout = given, given.problem.layout
        self._stride = max(1, len(plans) // SAMPLES)
        self._compares = can_compare(end)
        self._measures = self._compares and not batched(given.grad_ys)
        self._of_pair = self._of_sum = torch.zeros((), device=end.device)
        self._end = self._norms(end, math.inf) if self._compares else self._of_pair

    def samples(self, n: int) -> bool:
        """Return whether step n is to be seen: some steps show how cotangents grow."""
        return self._measures and n % self._stride == 0

    def see(self, y: Tensor, cotangents: Sequence[Tensor], total: Tensor, h: float = 1.0) -> None:
        """Note the cotangents of what a step adds to each of the two states, and that of both; y is one of them."""
        for cotangent in cotangents:
            self._of_pair = self._of_pair + self._norms(cotangent * y, 1.0) * abs(h)
        self._of_sum = self._of_sum + self._norms(total * y, 1.0) * abs(h)

    def settle(self, y: Tensor, slope: Tensor) -> None:
        """Raise ReversalError if y, which is y0 found by reversing every step, or the gradient is too far off.

        slope: f at the start. Raises FunctionChanged instead if that is the reason.
        """
        if not self._compares:
            return
        given = self._given
        name, eps = given.problem.gradient_name, eps_of(given.problem, given.field)
        off, gain = torch.stack([self._off(y, slope), self._gain()]).tolist()
        allowed = max(math.sqrt(torch.finfo(y.dtype).eps), eps)
        most = MOST_IN_HALF if eps >= TF32_EPS else 1.0 / math.sqrt(eps)
        if not off <= allowed:
            given.settle()
            raise ReversalError(
                f"reversing the {len(given.trajectory.plans)} steps of gradient={name!r} gave y0 "
                f"with a relative error of {off:.1e}, and the gradient would be as inaccurate (up to {allowed:.1e} "
                "is accepted): use larger steps, a state of higher precision, a coupling or an eta closer to 1, or "
                'gradient="symplectic"'
            )
        if gain > most:
            given.settle()
            raise ReversalError(
                f"the steps of gradient={name!r} amplify the rounding errors of func, {eps:.1e} of its values, "
                f"{gain:.2g} times as much as ordinary steps, and ys and the gradient would be as inaccurate (up to "
                f"{most:.2g} times is accepted): use a shorter interval, a func and a state of higher precision, or "
                'gradient="symplectic"'
            )

    def _off(self, y: Tensor, slope: Tensor) -> Tensor:
        """Return the largest error of a part of y0, relative to it.

        If that is zero, to how large the part becomes: at its end, or after the interval at its first slope.
        """
        duration = sum(abs(plan.h) for plan in self._given.trajectory.plans)
        size, later = self._norms(self._given.y0, math.inf), duration * self._norms(slope, math.inf)
        size = torch.where(size > 0.0, size, torch.maximum(later, self._end))
        off = self._norms(y - self._given.y0, math.inf)
        return torch.where(off == 0.0, off, off / size).amax()

    def _gain(self) -> Tensor:
        """Return the largest ratio among the parts; 0 for a gradient that is not finite, which is returned as it is."""
        ratio = self._of_pair / self._of_sum
        return torch.where(ratio.isfinite(), ratio, 0.0).amax()

    def _norms(self, x: Tensor, order: float) -> Tensor:
        """Return the norm of every part."""
        return torch.stack([torch.linalg.vector_norm(part, order) for part in self._layout.pieces(x)])
